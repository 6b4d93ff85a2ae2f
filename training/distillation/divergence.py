"""KL(targets || student) over the heads of two models, a few hundred rows of logits of either at a time.

`head_divergence_full` is the slow twin. The chunks are recomputed in the backward pass, the teacher's too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from llm.linear_cross_entropy_paths import math_dtype

ROWS = 256


@dataclass
class Divergence:
    """`total`: () sum of weight * KL over the rows, to be multiplied and divided by the caller. `each` (N,): the KL of
    each row, without gradient. `asked` (N,): where the targets ask for it."""

    total: torch.Tensor
    each: torch.Tensor
    asked: torch.Tensor


def head_divergence(
    student: Callable, teacher: Callable, student_rows: torch.Tensor, teacher_rows: torch.Tensor,
    labels: torch.Tensor, weights: torch.Tensor | None, targets: Callable, temperature: float, least_chunks: int = 1,
) -> Divergence:  # fmt: skip
    """The divergence of a batch.

    Args:
        student, teacher: rows (n, D) of hidden states -> logits (n, V).
        student_rows: (N, D). teacher_rows: (N, D') of the same positions. labels: (N,). weights: (N,) or None for 1.
        targets: see `training.distillation.targets`.
        least_chunks: the most chunks that any rank needs, where all ranks must call the heads equally often (ZeRO-3).
    """
    number = len(labels)
    each = student_rows.new_zeros(number, dtype=math_dtype(student_rows.dtype))
    asked = torch.zeros(number, dtype=torch.bool, device=student_rows.device)

    def chunk(rows: torch.Tensor, start: int) -> torch.Tensor:
        stop = min(start + ROWS, number)
        behind = teacher_rows[start:stop] if start < stop else teacher_rows.new_zeros(1, teacher_rows.shape[1])
        right = labels[start:stop] if start < stop else labels.new_zeros(1)
        found, wanted = _divergences(student(rows), behind, teacher, right, targets, temperature)
        if start >= stop:  # by the same path: a recomputation that ended earlier would leave weights gathered
            return found.sum() * 0
        each[start:stop], asked[start:stop] = found.detach(), wanted
        return (found if weights is None else found * weights[start:stop].to(found)).sum()

    total = student_rows.new_zeros((), dtype=each.dtype)
    for start in range(0, max(number, least_chunks * ROWS), ROWS):
        rows = student_rows[start : start + ROWS]
        if start >= number:  # one row of zeros, joined to the others so that it too has a gradient
            rows = rows.sum() + student_rows.new_zeros(1, student_rows.shape[1])
        total = total + checkpoint(chunk, rows, start, use_reentrant=False)
    return Divergence(total, each, asked)


def head_divergence_full(
    student: Callable, teacher: Callable, student_rows: torch.Tensor, teacher_rows: torch.Tensor,
    labels: torch.Tensor, weights: torch.Tensor | None, targets: Callable, temperature: float,
) -> torch.Tensor:  # fmt: skip
    """The slow twin: `total` from all logits at once, the definition of KL written out."""
    with torch.no_grad():
        log_targets, wanted = targets(teacher(teacher_rows).float(), labels, temperature)
    log_student = (student(student_rows).float() / temperature).log_softmax(-1)
    found = (log_targets.exp() * (log_targets - log_student)).sum(-1)
    wanted = torch.ones_like(found) if wanted is None else wanted.float()
    return (found * wanted * (1 if weights is None else weights)).sum()


def _divergences(logits, teacher_rows, teacher, labels, targets, temperature) -> tuple[torch.Tensor, torch.Tensor]:
    """`(KL (n,), asked (n,))` of the rows of a chunk."""
    kind = math_dtype(logits.dtype)
    with torch.no_grad():
        log_targets, wanted = targets(teacher(teacher_rows).to(kind), labels, temperature)
    log_student = torch.log_softmax(logits.to(kind) / temperature, -1)
    found = F.kl_div(log_student, log_targets, reduction="none", log_target=True).sum(-1)
    if wanted is None:
        return found, torch.ones_like(labels, dtype=torch.bool)
    return found.masked_fill(~wanted, 0), wanted
