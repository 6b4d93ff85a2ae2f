"""The Mamba-2 scan (state space duality, arXiv 2405.21060) in plain PyTorch, written for training on machines without
Mamba kernels. Unlike the fallback inside transformers it (1) forms the C·Bᵀ scores once a group, not once a head,
(2) keeps packed samples apart through ``seq_idx`` and (3) never pads a short sequence up to a whole chunk.
``ssd_scan_sequential`` is the slow twin that reads like the recurrence; a test keeps the two equal.
"""

import torch
import torch.nn.functional as F


def _prepare_step(
    dt: torch.Tensor, dt_bias: torch.Tensor | None, dt_softplus: bool, dt_limit: tuple[float, float]
) -> torch.Tensor:
    """Step sizes in fp32: bias, softplus and clamp, in the order of the published kernels."""
    dt = dt.float()
    if dt_bias is not None:
        dt = dt + dt_bias.float()
    if dt_softplus:
        dt = F.softplus(dt)
    low, high = dt_limit
    if low > 0.0 or high != float("inf"):
        dt = dt.clamp(min=low, max=high)
    return dt


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

    Args:
        x: inputs (B, L, H, P). dt: raw steps (B, L, H). A: negative decay rates (H,).
        B, C: input and output maps (B, L, G, N); H must be a multiple of G.
        chunk_size: positions handled by one quadratic block; the last chunk may be shorter.
        D: skip weights (H,). dt_bias: (H,). seq_idx: (B, L) integers, equal inside one packed sample.
        initial_states: (B, H, P, N), the state before position 0 (it belongs to the sample of position 0).

    Returns:
        y (B, L, H, P) in the dtype of ``x`` and the last state (B, H, P, N) in fp32.
    """
    batch, length, heads, head_dim = x.shape
    groups, state_size = B.shape[2], B.shape[3]
    if heads % groups:
        raise ValueError(f"the number of heads ({heads}) must be a multiple of the number of groups ({groups})")
    dt = _prepare_step(dt, dt_bias, dt_softplus, dt_limit)
    log_decay = dt * A.float()
    inputs = x.float() * dt.unsqueeze(-1)
    B, C = B.float(), C.float()
    if initial_states is None:
        state = x.new_zeros(batch, heads, head_dim, state_size, dtype=torch.float32)
    else:
        state = initial_states.float()
    has_state = initial_states is not None

    outputs = []
    for start in range(0, length, chunk_size):
        end = min(start + chunk_size, length)
        size = end - start
        ids = seq_idx[:, start:end] if seq_idx is not None else None
        total = log_decay[:, start:end].cumsum(1).transpose(1, 2)  # (B, H, l)
        b, c = B[:, start:end].transpose(1, 2), C[:, start:end].transpose(1, 2)  # (B, G, l, N)
        u = inputs[:, start:end].transpose(1, 2)  # (B, H, l, P)

        # inside the chunk: an attention-like product whose mask holds the decay between two positions
        hidden = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
        if ids is not None:
            hidden = hidden | (ids[:, None, :, None] != ids[:, None, None, :])
        decay = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(hidden, float("-inf")).exp()
        scores = c @ b.transpose(-1, -2)  # (B, G, l, s)
        if groups > 1:
            scores = scores.repeat_interleave(heads // groups, dim=1)
        y = (scores * decay) @ u

        # from the state before the chunk; positions of a later sample must not see it
        if has_state:
            reach = total.exp()
            if ids is not None:
                previous = seq_idx[:, max(start - 1, 0)]
                reach = reach * (ids == previous[:, None]).unsqueeze(1)
            c_heads = c.repeat_interleave(heads // groups, dim=1)
            y = y + (c_heads @ state.transpose(-1, -2)) * reach.unsqueeze(-1)
        outputs.append(y.transpose(1, 2))

        # the state after the chunk: what the positions of its last sample leave behind
        left = (total[..., -1:] - total).exp()
        kept = total[..., -1].exp()
        if ids is not None:
            left = left * (ids == ids[:, -1:]).unsqueeze(1)
            kept = kept * (ids[:, -1] == seq_idx[:, max(start - 1, 0)]).unsqueeze(-1)
        b_heads = b.repeat_interleave(heads // groups, dim=1)
        added = (u * left.unsqueeze(-1)).transpose(-1, -2) @ b_heads
        state = added + state * kept[..., None, None] if has_state else added
        has_state = True

    y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
    if D is not None:
        y = y + x.float() * D.float().unsqueeze(-1)
    return y.to(x.dtype), state


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
    dt = _prepare_step(dt, dt_bias, dt_softplus, dt_limit)
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
        outputs.append((state @ C[:, t].unsqueeze(-1)).squeeze(-1))
    y = torch.stack(outputs, dim=1)
    if D is not None:
        y = y + x.float() * D.float().unsqueeze(-1)
    return y.to(x.dtype), state
