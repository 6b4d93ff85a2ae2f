"""Cross entropy of a language model's head without its logits: 16k tokens of a 131k vocabulary are 8.6 GB in fp32, and
only a chunk of rows is ever held. How is in ``linear_cross_entropy_paths``; ``linear_cross_entropy_full`` is the slow
twin, and a test keeps every path equal to it. Nothing is shifted here: ``labels[i]`` is what ``hidden[i]`` predicts.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from llm.linear_cross_entropy_paths import GradientsInForward, math_dtype

IGNORED = -100


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    token_weights: torch.Tensor | None = None,
    scale: float = 1.0,
    bias: torch.Tensor | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """Mean cross entropy of ``hidden @ weight.T`` against ``labels``, its math in fp32 whatever the inputs are.

    ``logits = scale * (hidden @ weight.T + bias)``, then ``softcap * tanh(logits / softcap)``, in this order.

    Args:
        hidden: (..., D). weight: (V, D), of the same dtype. bias: (V,).
        labels: (...), integers in [0, V), -100 where nothing is predicted; aligned with ``hidden``, NOT shifted here.
        token_weights: (...), at least 0, constants (no gradient); what stands at ignored positions does not count.
        scale: multiplies the logits (falcon_h1, granite). softcap: bounds them to (-softcap, softcap).

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs): the mean over labelled positions, or with ``token_weights`` the weighted
        mean ``sum(w * nll) / sum(w over labelled)``. Without any label, or any weight, it is 0 and every gradient is
        zero (not None: data-parallel training needs them), never NaN.
    """
    value = linear_cross_entropy_sum(hidden, weight, labels, token_weights, scale, bias, softcap)
    return value / _total(labels, token_weights, value.dtype)


@torch.compiler.disable  # which rows count depends on the data: a compiled caller breaks its graph here
def linear_cross_entropy_sum(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    token_weights: torch.Tensor | None = None,
    scale: float = 1.0,
    bias: torch.Tensor | None = None,
    softcap: float | None = None,
    z_weights: torch.Tensor | None = None,
    token_losses: torch.Tensor | None = None,
) -> torch.Tensor:
    """``sum(token_weights * nll) + sum(z_weights * logsumexp(logits)²)``, to be divided by what the caller counts by.

    Arguments as in :func:`linear_cross_entropy`; weights may be negative here. ``z_weights`` (...) counts at every
    position, labelled or not: a z-loss of coefficient c over all P positions, beside a cross entropy divided by N
    tokens, is ``z_weights = c * N / P`` everywhere.

    ``token_losses`` (...), fp32 zeros, is filled in place with the nll of every position whose weight is not 0,
    without that weight and without gradient: a by-product that tells whose tokens the loss comes from.
    """
    uniform = token_weights is None
    labels, token_weights, z_weights = _checked(hidden, labels, token_weights, z_weights, scale, softcap)
    if weight.ndim != 2 or weight.shape[1] != hidden.shape[-1]:
        hint = ": a ZeRO-3 partition, gather it around this call" if hasattr(weight, "ds_id") else ""
        needed = f"(V, {hidden.shape[-1]})"
        raise ValueError(f"hidden {tuple(hidden.shape)} needs a weight {needed}, not {tuple(weight.shape)}{hint}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"weight {tuple(weight.shape)} needs a bias ({weight.shape[0]},), not {tuple(bias.shape)}")
    _check_range(labels, weight.shape[0])

    device = hidden.device.type
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:  # autocast's own casts
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    if hidden.dtype != weight.dtype:
        raise ValueError(f"hidden is {hidden.dtype} but weight is {weight.dtype}: cast one, or train under autocast")
    rows = hidden.reshape(-1, hidden.shape[-1])
    each = _flat_buffer(token_losses, hidden.shape[:-1])
    settings = (float(scale), softcap, uniform, torch.is_grad_enabled())
    with torch.autocast(device, enabled=False):
        return GradientsInForward.apply(rows, weight, bias, labels, token_weights, z_weights, each, *settings)


def head_cross_entropy_sum(
    head: Callable[[torch.Tensor], torch.Tensor],
    hidden: torch.Tensor,
    labels: torch.Tensor,
    token_weights: torch.Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    z_weights: torch.Tensor | None = None,
    token_losses: torch.Tensor | None = None,
    rows_per_chunk: int = 256,
    least_chunks: int = 1,
) -> torch.Tensor:
    """:func:`linear_cross_entropy_sum` for a head that is more than a weight: with adapters, quantized, sharded.

    ``head`` maps (n, D) to logits (n, V), its bias included; it is called once a chunk and again in the backward. Where
    all ranks must call it equally often (ZeRO-3, FSDP), pass as ``least_chunks`` the largest
    ``ceil(counted rows / rows_per_chunk)`` of any rank: what is missing is filled by calls of weight zero.
    """
    labels, token_weights, z_weights = _checked(hidden, labels, token_weights, z_weights, scale, softcap)
    each = _flat_buffer(token_losses, hidden.shape[:-1])
    hidden = hidden.reshape(-1, hidden.shape[-1])
    counted = token_weights != 0 if z_weights is None else (token_weights != 0) | (z_weights != 0)

    def chunk_sum(rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        logits = head(rows)
        _check_range(labels, logits.shape[-1])
        if not len(positions):  # by the same path: a recomputation that ended earlier would leave weights gathered
            zero = logits.new_zeros(1, dtype=math_dtype(logits.dtype))
            z = None if z_weights is None else zero
            return _sum_of_logits(logits, labels.new_zeros(1), zero, z, scale, softcap)[0]
        z = None if z_weights is None else z_weights[positions]
        value, nll = _sum_of_logits(logits, labels[positions], token_weights[positions], z, scale, softcap)
        if each is not None:
            each[positions] = nll.detach().masked_fill(token_weights[positions] == 0, 0)
        return value

    total = hidden.new_zeros((), dtype=math_dtype(hidden.dtype))
    rows = counted.nonzero().squeeze(1)
    chunks = rows.split(rows_per_chunk) if len(rows) else ()
    nothing = labels.new_zeros(0)
    for positions in (*chunks, *[nothing] * (max(least_chunks, 1) - len(chunks))):
        # without positions one row of zeros goes through the head, joined to hidden so that it too has a gradient
        rows = hidden[positions] if len(positions) else hidden.sum() * 0 + hidden.new_zeros(1, hidden.shape[1])
        total = total + checkpoint(chunk_sum, rows, positions, use_reentrant=False)
    return total


def linear_cross_entropy_full(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    token_weights: torch.Tensor | None = None,
    scale: float = 1.0,
    bias: torch.Tensor | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """The slow twin of :func:`linear_cross_entropy`: all logits, plain autograd."""
    value = linear_cross_entropy_sum_full(hidden, weight, labels, token_weights, scale, bias, softcap)
    return value / _total(labels, token_weights, value.dtype)


def linear_cross_entropy_sum_full(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    token_weights: torch.Tensor | None = None,
    scale: float = 1.0,
    bias: torch.Tensor | None = None,
    softcap: float | None = None,
    z_weights: torch.Tensor | None = None,
    token_losses: torch.Tensor | None = None,
) -> torch.Tensor:
    """The slow twin of :func:`linear_cross_entropy_sum`."""
    labels, token_weights, z_weights = _checked(hidden, labels, token_weights, z_weights, scale, softcap)
    logits = F.linear(hidden.reshape(-1, hidden.shape[-1]), weight)
    _check_range(labels, logits.shape[-1])
    if bias is not None:
        logits = logits.to(math_dtype(logits.dtype)) + bias
    value, nll = _sum_of_logits(logits, labels, token_weights, z_weights, scale, softcap)
    if token_losses is not None:
        token_losses.copy_(torch.where(token_weights != 0, nll.detach(), 0).view_as(token_losses))
    return value


def _flat_buffer(token_losses: torch.Tensor | None, shape: tuple[int, ...]) -> torch.Tensor | None:
    """The caller's buffer as one row of numbers, which shares its memory."""
    if token_losses is None:
        return None
    if tuple(token_losses.shape) != tuple(shape):
        raise ValueError(f"token_losses {tuple(token_losses.shape)} must be one for each row of hidden {tuple(shape)}")
    return token_losses.view(-1)


def _sum_of_logits(logits, labels, token_weights, z_weights, scale, softcap) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum both twins and the head path share, from logits (n, V) before scale and softcap; and each nll (n,)."""
    logits = logits.to(math_dtype(logits.dtype)) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    nll = F.cross_entropy(logits, labels, reduction="none")
    value = (token_weights * nll).sum()
    return (value if z_weights is None else value + (z_weights * logits.logsumexp(-1).square()).sum()), nll


def _total(labels: torch.Tensor, token_weights: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """What a mean divides by: labelled positions or their weights; 1 in place of 0."""
    labelled = labels != IGNORED
    if token_weights is None:
        return labelled.sum().clamp(min=1)
    counted = torch.where(labelled, token_weights, 0)
    if not bool((counted >= 0).all()):
        raise ValueError("token_weights of a mean must be numbers of at least 0; linear_cross_entropy_sum takes others")
    total = counted.sum(dtype=dtype)
    return torch.where(total == 0, torch.ones_like(total), total)


def _checked(hidden, labels, token_weights, z_weights, scale, softcap):
    """Flat labels (0 for -100), flat token weights (0 there), flat z weights or None; errors for what does not fit."""
    if hidden.ndim == 0 or hidden.shape[:-1] != labels.shape:
        raise ValueError(f"labels {tuple(labels.shape)} must be one for each row of hidden {tuple(hidden.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels are token ids, of an integer dtype, not {labels.dtype}")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap must be positive, or None for no cap, not {softcap}")
    if not math.isfinite(scale):
        raise ValueError(f"scale must be a finite number, not {scale}")
    for name, weights in (("token_weights", token_weights), ("z_weights", z_weights)):
        if weights is not None and weights.shape != labels.shape:
            raise ValueError(f"{name} {tuple(weights.shape)} must have the shape of labels {tuple(labels.shape)}")
        if weights is not None and weights.requires_grad:
            raise ValueError(f"{name} are constants of the loss and get no gradient: detach them")
    dtype = math_dtype(hidden.dtype)
    labelled = (labels != IGNORED).flatten()
    labels = torch.where(labelled, labels.flatten(), 0).long()
    token_weights = labelled if token_weights is None else torch.where(labelled, token_weights.flatten(), 0)
    return labels, token_weights.to(dtype), None if z_weights is None else z_weights.flatten().to(dtype)


def _check_range(labels: torch.Tensor, vocabulary: int) -> None:
    """Both ends at once, for reading from a GPU waits for it."""
    smallest, largest = torch.stack(labels.aminmax()).tolist() if labels.numel() else (0, 0)
    if smallest < 0:
        raise ValueError(f"label {smallest} is neither a token id nor {IGNORED}, the ignored mark")
    if largest >= vocabulary:
        raise ValueError(f"label {largest} is outside the head's vocabulary of {vocabulary}: resize the head or fix it")
