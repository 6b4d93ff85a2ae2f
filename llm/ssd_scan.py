"""The Mamba-2 scan (state space duality, arXiv 2405.21060) in plain PyTorch, for training on machines without Mamba
kernels. Unlike the fallback inside transformers it (1) forms the C·Bᵀ scores once a group, not once a head, (2) keeps
packed samples apart through ``seq_idx``, (3) never pads a short sequence up to a whole chunk, and (4) saves nothing but
its inputs for backward, which is written by hand. ``ssd_scan_sequential`` is the slow twin that reads like the
recurrence; tests keep the two equal.
"""

import torch

from llm.sample_runs import sample_runs
from llm.scan_inputs import check_shapes, prepare_step
from llm.ssd_autograd import scan_chunks
from llm.ssd_block import LEAST


def ssd_scan(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    chunk_size: int,
    D: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    seq_idx: torch.Tensor | None = None,
    initial_states: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Chunked selective scan ``h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_tᵀ``, ``y_t = C_t h_t + D x_t``.

    Shapes and meaning are those of ``mamba_ssm.ops.triton.ssd_combined.mamba_chunk_scan_combined``. States, decays and
    sums are fp32, under autocast too; on accelerators the operands of the matrix products of bf16 inputs stay bf16.

    Args:
        x: inputs (B, L, H, P). dt: raw steps (B, L, H). A: negative decay rates (H,).
        B, C: input and output maps (B, L, G, N); H must be a multiple of G.
        chunk_size: positions handled by one quadratic block; the last chunk may be shorter. Does not change the result.
        D: skip weights (H,) or (H, P). dt_bias: (H,).
        dt_softplus, dt_limit: steps are clamp(softplus(dt + dt_bias), *dt_limit).
        seq_idx: (B, L) integers, equal inside one packed sample; the state starts from zeros at every change.
        initial_states: (B, H, P, N), the state before position 0 (it belongs to the sample of position 0).

    Returns:
        y (B, L, H, P) in the dtype of ``x`` and the state after the last position (B, H, P, N) in fp32.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    _check(x, dt, A, B, C, chunk_size, D, dt_bias, initial_states)
    batch, _, heads, width = x.shape
    groups, state_size = B.shape[2:]
    runs = sample_runs(seq_idx, x)
    if x.shape[1] == 1:  # a token decoded: the recurrence itself is the shortest way
        return ssd_scan_sequential(x, dt, A, B, C, chunk_size, D, dt_bias, dt_softplus, dt_limit, None, initial_states)
    dt = prepare_step(dt, dt_bias, dt_softplus, dt_limit)
    log_decay = (dt * A.float()).clamp(min=2 * LEAST)  # nothing is left of a state below; sums stay small
    if initial_states is None:
        initial_states = x.new_zeros(batch, heads, width, state_size, dtype=torch.float32)
    by_group = (groups, heads // groups)
    y, last = scan_chunks(
        x.unflatten(2, by_group),
        dt.unflatten(2, by_group),
        log_decay.unflatten(2, by_group),
        B,
        C,
        None if D is None else D.float().reshape(*by_group, -1),
        initial_states.float().unflatten(1, by_group),
        runs,
        chunk_size,
    )
    return y.flatten(2, 3), last.flatten(1, 2)


def ssd_scan_sequential(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    chunk_size: int,
    D: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    seq_idx: torch.Tensor | None = None,
    initial_states: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The recurrence of :func:`ssd_scan`, one position after the other (``chunk_size`` is ignored)."""
    batch, length, heads, head_dim = x.shape
    dt = prepare_step(dt, dt_bias, dt_softplus, dt_limit)
    repeats = heads // B.shape[2]
    B, C = B.float().repeat_interleave(repeats, dim=2), C.float().repeat_interleave(repeats, dim=2)
    if initial_states is None:
        state = x.new_zeros(batch, heads, head_dim, B.shape[-1], dtype=torch.float32)
    else:
        state = initial_states.float()
    outputs = []
    for t in range(length):
        if seq_idx is not None and t > 0:
            state = state * (seq_idx[:, t] == seq_idx[:, t - 1]).float()[:, None, None, None]
        update = (dt[:, t, :, None] * x[:, t].float()).unsqueeze(-1) * B[:, t].unsqueeze(-2)
        state = state * (dt[:, t] * A.float()).exp()[..., None, None] + update
        outputs.append((state * C[:, t].unsqueeze(-2)).sum(-1))
    y = torch.stack(outputs, dim=1)
    if D is not None:
        y = y + x.float() * D.float().view(heads, -1)
    return y.to(x.dtype), state


def _check(x, dt, A, B, C, chunk_size, D, dt_bias, initial_states) -> None:
    if x.dim() != 4 or B.dim() != 4 or 0 in x.shape:
        raise ValueError(
            f"x {tuple(x.shape)} and B {tuple(B.shape)} must be (batch, length, heads, width) and (batch, length, "
            "groups, state), none of them empty"
        )
    batch, length, heads, width = x.shape
    groups, state_size = B.shape[2:]
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}, a chunk holds at least one position")
    if heads % groups:
        raise ValueError(f"the number of heads ({heads}) must be a multiple of the number of groups ({groups})")
    wanted = {
        "dt": (dt, (batch, length, heads)),
        "A": (A, (heads,)),
        "B": (B, (batch, length, groups, state_size)),
        "C": (C, (batch, length, groups, state_size)),
        "D": (D, (heads,) if D is None or D.dim() == 1 else (heads, width)),
        "dt_bias": (dt_bias, (heads,)),
        "initial_states": (initial_states, (batch, heads, width, state_size)),
    }
    check_shapes(wanted, f"with x {tuple(x.shape)} and B {tuple(B.shape)}")
