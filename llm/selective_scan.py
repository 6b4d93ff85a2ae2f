"""The Mamba-1 scan (arXiv 2312.00752, the recurrence of Jamba) in plain PyTorch, with packed samples and an initial
state.

Every channel has decays of its own, so there is no matrix product to hide in. Three things keep it usable: small
models run several blocks of a sequence side by side and then carry the states from block to block; long sequences are
cut into segments that backward computes again, so memory does not grow with length x channels x state; and nothing
ever divides by a decay. ``selective_scan_sequential`` is the slow twin.
"""

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from llm.sample_runs import sample_runs

STATES_AT_ONCE = 1 << 16  # elements of one step: below it, Python's overhead costs more than the arithmetic
SEGMENT_ELEMENTS = 1 << 24  # positions x channels x state of one segment: what backward holds at a time, a few times


def _prepare(x, dt, A, B, C, dt_bias, dt_softplus, seq_idx, initial_states):
    """Everything in fp32; (B, L) 1.0 where a position continues the sample before it, the state before position 0."""
    batch, length, channels = x.shape
    size = A.shape[-1]
    wanted = {"dt": (dt, tuple(x.shape)), "A": (A, (channels, size)), "B": (B, (batch, length, size))}
    wanted |= {"C": (C, (batch, length, size))}
    for name, (tensor, shape) in wanted.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; beside x {tuple(x.shape)} it must be {shape}")
    dt = dt.float() if dt_bias is None else dt.float() + dt_bias.float()
    dt = F.softplus(dt) if dt_softplus else dt
    runs = sample_runs(seq_idx, x)
    keep = x.new_ones(batch, length, dtype=torch.float32)
    if runs is not None:
        keep = torch.cat([keep[:, :1], (runs[:, 1:] == runs[:, :-1]).float()], dim=1)
    if initial_states is None:
        initial_states = x.new_zeros(batch, channels, size)
    state = initial_states.float()
    return x.float(), dt, A.float(), B.float(), C.float(), keep, state


def _step(state, dt, u, A, B, keep):
    """One position of every block: all (b, n, ...), the state (b, n, D, N)."""
    decay = torch.exp(dt.unsqueeze(-1) * A) * keep[..., None, None]
    return decay * state + u.unsqueeze(-1) * B.unsqueeze(-2)


def _segment(x, dt, A, B, C, keep, state):
    """(b, S, D) -> outputs (b, S, D) and the state behind them."""
    batch, length, channels = x.shape
    blocks = max(1, min(STATES_AT_ONCE // state.numel(), int(length**0.5)))
    size = -(-length // blocks)
    blocks = -(-length // size)
    # padding has step 0: it decays nothing and adds nothing
    x, dt, B, C = (F.pad(t, (0, 0, 0, blocks * size - length)).unflatten(1, (blocks, size)) for t in (x, dt, B, C))
    keep = F.pad(keep, (0, blocks * size - length), value=1.0).unflatten(1, (blocks, size))
    u = dt * x
    entering = state.unsqueeze(1)
    if blocks > 1:
        local = torch.zeros_like(entering).expand(-1, blocks - 1, -1, -1)
        for t in range(size):
            local = _step(local, dt[:, :-1, t], u[:, :-1, t], A, B[:, :-1, t], keep[:, :-1, t])
        kept = torch.exp(dt[:, :-1].sum(2).unsqueeze(-1) * A) * keep[:, :-1].prod(2)[..., None, None]
        states = [state]
        for i in range(blocks - 1):
            states.append(kept[:, i] * states[-1] + local[:, i])
        entering = torch.stack(states, dim=1)
    outputs = []
    for t in range(size):
        entering = _step(entering, dt[:, :, t], u[:, :, t], A, B[:, :, t], keep[:, :, t])
        outputs.append((entering * C[:, :, t].unsqueeze(-2)).sum(-1))
    y = torch.stack(outputs, dim=2).flatten(1, 2)[:, :length]
    return y, entering[:, -1]


def selective_scan(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    dt_softplus: bool = False,
    seq_idx: torch.Tensor | None = None,
    initial_states: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t``, ``y_t = C_t·h_t + D x_t`` for every channel.

    Args:
        x: inputs (B, L, D). dt: raw steps (B, L, D). A: negative decay rates (D, N).
        B, C: input and output maps (B, L, N), shared by the channels.
        D: skip weights (D,). dt_bias: (D,). seq_idx: (B, L) integers, equal inside one packed sample.
        initial_states: (B, D, N), the state before position 0 (it belongs to the sample of position 0).

    Returns:
        y (B, L, D) in the dtype of ``x`` and the last state (B, D, N) in fp32.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    skip, dtype = x, x.dtype
    x, dt, A, B, C, keep, state = _prepare(x, dt, A, B, C, dt_bias, dt_softplus, seq_idx, initial_states)
    length = max(1, SEGMENT_ELEMENTS // state.numel())
    outputs = []
    for start in range(0, x.shape[1], length):
        cut = slice(start, start + length)
        pieces = (x[:, cut], dt[:, cut], A, B[:, cut], C[:, cut], keep[:, cut], state)
        if torch.is_grad_enabled() and x.shape[1] > length:
            y, state = checkpoint(_segment, *pieces, use_reentrant=False, preserve_rng_state=False)
        else:
            y, state = _segment(*pieces)
        outputs.append(y)
    y = torch.cat(outputs, dim=1)
    if D is not None:
        y = y + skip.float() * D.float()
    return y.to(dtype), state


def selective_scan_sequential(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    dt_softplus: bool = False,
    seq_idx: torch.Tensor | None = None,
    initial_states: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The recurrence of :func:`selective_scan`, one position after the other."""
    skip, dtype = x, x.dtype
    x, dt, A, B, C, keep, state = _prepare(x, dt, A, B, C, dt_bias, dt_softplus, seq_idx, initial_states)
    outputs = []
    for t in range(x.shape[1]):
        state = state * keep[:, t, None, None]
        added = (dt[:, t] * x[:, t]).unsqueeze(-1) * B[:, t].unsqueeze(1)
        state = torch.exp(dt[:, t].unsqueeze(-1) * A) * state + added
        outputs.append((state * C[:, t].unsqueeze(1)).sum(-1))
    y = torch.stack(outputs, dim=1)
    if D is not None:
        y = y + skip.float() * D.float()
    return y.to(dtype), state
