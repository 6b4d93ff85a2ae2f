"""The Mamba-1 scan (arXiv 2312.00752) in plain PyTorch, for Jamba on machines without Mamba kernels: fp32 states,
packed samples kept apart, an initial state. ``selective_scan_sequential`` is the slow twin; tests keep the two equal.

A sequence is cut into segments, a segment into lanes that advance together, one position of each at a time: first from
zeros, which gives what every lane adds to the state, then from the states this leads to. Nothing is divided by a decay,
so no step is too large. Memory does not grow with the length: backward keeps the states of one segment.
"""

import math

import torch
import torch.nn.functional as F

from llm.sample_runs import sample_runs
from llm.scan_inputs import check_shapes, prepare_step

# Numbers of all states that advance together: enough to hide the cost of calling an operation, few enough for cache.
_TOGETHER = {"cpu": 1 << 17, "other": 1 << 22}
# Numbers of all states of a segment, which backward keeps, and as many decays.
_SEGMENT = {"cpu": 1 << 22, "other": 1 << 26}


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
    """``h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_tᵀ``, ``y_t = h_t C_t + D x_t`` for every channel.

    Args:
        x: inputs (B, L, D). dt: raw steps (B, L, D). A: negative decay rates (D, N).
        B, C: input and output maps (B, L, N), shared by the channels. D: skip weights (D,). dt_bias: (D,).
        dt_softplus: steps are softplus(dt + dt_bias).
        seq_idx: (B, L) integers, equal inside one packed sample; the state starts from zeros at every change.
        initial_states: (B, D, N), the state before position 0 (it belongs to the sample of position 0).

    Returns:
        y (B, L, D) in the dtype of ``x`` and the state after the last position (B, D, N) in fp32.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    _check(x, dt, A, B, C, D, dt_bias, initial_states)
    runs = sample_runs(seq_idx, x)
    if x.shape[1] == 1:  # a token decoded: the recurrence itself is the shortest way
        return selective_scan_sequential(x, dt, A, B, C, D, dt_bias, dt_softplus, None, initial_states)
    dt = prepare_step(dt, dt_bias, dt_softplus)
    kept = None if runs is None else F.pad((runs[:, 1:] == runs[:, :-1]).float(), (1, 0), value=1.0)
    if initial_states is None:
        initial_states = x.new_zeros(x.shape[0], *A.shape, dtype=torch.float32)
    # Channels last inside: steps and inputs are then read along memory.
    y, last, _ = _scan(
        x, dt, A.float().t(), B, C, None if D is None else D.float(), initial_states.float().transpose(1, 2), kept
    )
    return y, last.transpose(1, 2)


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
    dt = prepare_step(dt, dt_bias, dt_softplus)
    state = x.new_zeros(x.shape[0], *A.shape, dtype=torch.float32) if initial_states is None else initial_states.float()
    outputs = []
    for t in range(x.shape[1]):
        if seq_idx is not None and t > 0:
            state = state * (seq_idx[:, t] == seq_idx[:, t - 1]).float()[:, None, None]
        update = (dt[:, t] * x[:, t].float()).unsqueeze(-1) * B[:, t].float().unsqueeze(1)
        state = state * (dt[:, t].unsqueeze(-1) * A.float()).exp() + update
        outputs.append((state * C[:, t].float().unsqueeze(1)).sum(-1))
    y = torch.stack(outputs, 1)
    if D is not None:
        y = y + x.float() * D.float()
    return y.to(x.dtype), state


def _check(x, dt, A, B, C, D, dt_bias, initial_states) -> None:
    if x.dim() != 3 or A.dim() != 2 or 0 in x.shape:
        raise ValueError(
            f"x {tuple(x.shape)} and A {tuple(A.shape)} must be (batch, length, channels) and (channels, state), "
            "none of them empty"
        )
    batch, length, width = x.shape
    size = A.shape[1]
    wanted = {
        "dt": (dt, (batch, length, width)),
        "A": (A, (width, size)),
        "B": (B, (batch, length, size)),
        "C": (C, (batch, length, size)),
        "D": (D, (width,)),
        "dt_bias": (dt_bias, (width,)),
        "initial_states": (initial_states, (batch, width, size)),
    }
    check_shapes(wanted, f"with x {tuple(x.shape)} and A {tuple(A.shape)}")


class _Segment:
    """Positions start ... end of all inputs, folded into lanes (B, lanes, steps, ...), the last one filled up."""

    def __init__(self, start, end, lanes, x, dt, A, B, C, kept):
        self.steps = -(-(end - start) // lanes)
        self.lanes, self.length, self.A = lanes, end - start, A
        self.x, self.dt, self.B, self.C = (self.fold(t[:, start:end].float()) for t in (x, dt, B, C))
        self.inputs = self.dt * self.x
        self.kept = None if kept is None else self.fold(kept[:, start:end], 1.0)

    def fold(self, t: torch.Tensor, value: float = 0.0) -> torch.Tensor:
        missing = self.lanes * self.steps - self.length
        if missing:
            t = F.pad(t, (0, 0) * (t.dim() - 2) + (0, missing), value=value)
        return t.unflatten(1, (self.lanes, self.steps))

    def unfold(self, t: torch.Tensor) -> torch.Tensor:
        return t.flatten(1, 2)[:, : self.length]

    def decay(self, step: int) -> torch.Tensor:
        """(B, lanes, N, D): what one step keeps of the state."""
        decay = (self.dt[:, :, step].unsqueeze(2) * self.A).exp_()
        return decay if self.kept is None else decay.mul_(self.kept[:, :, step, None, None])

    def advance(self, state: torch.Tensor, step: int, decay: torch.Tensor) -> torch.Tensor:
        """The state (B, lanes, N, D) after a step, in place."""
        return state.mul_(decay).addcmul_(self.B[:, :, step].unsqueeze(3), self.inputs[:, :, step].unsqueeze(2))

    def whole_decay(self) -> torch.Tensor:
        """(B, lanes, N, D): what all steps of a lane keep."""
        decay = (self.dt.sum(2).unsqueeze(2) * self.A).exp_()
        return decay if self.kept is None else decay.mul_(self.kept.amin(2)[..., None, None])

    def lane_states(self, state: torch.Tensor) -> torch.Tensor:
        """(B, lanes, N, D), the states before the first step, from that of the first lane (B, N, D)."""
        if self.lanes == 1:
            return state.unsqueeze(1).clone()
        added = state.new_zeros(state.shape[0], self.lanes, *state.shape[1:])
        for step in range(self.steps):
            self.advance(added, step, self.decay(step))
        decay = self.whole_decay()
        states = [state]
        for lane in range(self.lanes - 1):
            states.append(torch.addcmul(added[:, lane], decay[:, lane], states[-1]))
        return torch.stack(states, 1)


def _segment_size(x: torch.Tensor, A: torch.Tensor) -> int:
    batch, _, width = x.shape
    return max(1, _SEGMENT["cpu" if x.device.type == "cpu" else "other"] // (batch * width * A.shape[0]))


def _segments(x: torch.Tensor, A: torch.Tensor) -> list[tuple[int, int, int]]:
    """(start, end, lanes) of every segment."""
    batch, length, width = x.shape
    together = _TOGETHER["cpu" if x.device.type == "cpu" else "other"] // (batch * width * A.shape[0])
    found = []
    for start in range(0, length, _segment_size(x, A)):
        end = min(start + _segment_size(x, A), length)
        # states pass from lane to lane one after the other, so more lanes than steps would not pay
        found.append((start, end, max(1, min(together, math.isqrt(2 * (end - start))))))
    return found


@torch.library.custom_op("radio_vlm::selective_scan", mutates_args=())
def _scan(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    initial: torch.Tensor,
    kept: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs (B, L, D), last state (B, N, D), states before every segment (segments, B, N, D); A: (N, D)."""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    state, before = initial, []
    with torch.autocast(x.device.type, enabled=False):
        for start, end, lanes in _segments(x, A):
            before.append(state)
            segment = _Segment(start, end, lanes, x, dt, A, B, C, kept)
            states = segment.lane_states(state)
            out = torch.empty_like(segment.x)
            for step in range(segment.steps):
                segment.advance(states, step, segment.decay(step))
                out[:, :, step] = (segment.C[:, :, step].unsqueeze(2) @ states).squeeze(2)
            if D is not None:
                out.addcmul_(segment.x, D)
            y[:, start:end] = segment.unfold(out)
            state = states[:, -1]
    return y, state.contiguous(), torch.stack(before)


@_scan.register_fake
def _(x, dt, A, B, C, D, initial, kept):
    segments = -(-x.shape[1] // _segment_size(x, A))
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    last = torch.empty_like(initial, memory_format=torch.contiguous_format)
    return y, last, last.new_empty(segments, *last.shape)


@torch.library.custom_op("radio_vlm::selective_scan_backward", mutates_args=())
def _gradients(
    gy: torch.Tensor,
    g_last: torch.Tensor,
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    before: torch.Tensor,
    kept: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, dt, A, B, C and the initial state."""
    g_x, g_dt, g_B, g_C = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, dt, B, C))
    g_A = torch.zeros_like(A, memory_format=torch.contiguous_format)
    g_state = g_last
    with torch.autocast(x.device.type, enabled=False):
        segments = _segments(x, A)
        for (start, end, lanes), state in zip(reversed(segments), before.flip(0)):
            segment = _Segment(start, end, lanes, x, dt, A, B, C, kept)
            g = segment.fold(gy[:, start:end].float())
            *found, g_state = _segment_gradients(segment, state, g, g_state)
            g_inputs, found_dt, found_A, found_B, found_C = found
            g_A += found_A
            found_x = g_inputs * segment.dt
            g_x[:, start:end] = segment.unfold(found_x if D is None else found_x.addcmul_(g, D))
            for whole, piece in ((g_dt, found_dt.addcmul_(g_inputs, segment.x)), (g_B, found_B), (g_C, found_C)):
                whole[:, start:end] = segment.unfold(piece)
    return g_x, g_dt, g_A, g_B, g_C, g_state.contiguous()


def _segment_gradients(segment: _Segment, state: torch.Tensor, gy: torch.Tensor, g_last: torch.Tensor):
    """Gradients of the inputs dt x, of dt where it sets decays, of A, B, C and of the state before the segment."""
    start = segment.lane_states(state)
    states = start.new_empty(segment.steps + 1, *start.shape)
    decays = start.new_empty(segment.steps, *start.shape)
    states[0] = start
    g_C = torch.empty_like(segment.C)
    for step in range(segment.steps):
        decays[step] = segment.decay(step)
        state = segment.advance(states[step + 1].copy_(states[step]), step, decays[step])
        g_C[:, :, step] = (state @ gy[:, :, step].unsqueeze(3)).squeeze(3)

    B, C = segment.B.unsqueeze(4), segment.C.unsqueeze(4)  # (B, lanes, steps, N, 1)
    g_ends = [g_last]  # from the last lane to the first
    if segment.lanes > 1:
        g = torch.zeros_like(start)
        for step in reversed(range(segment.steps)):
            g.addcmul_(C[:, :, step], gy[:, :, step].unsqueeze(2)).mul_(decays[step])
        whole = segment.whole_decay()
        for lane in range(segment.lanes - 1, 0, -1):
            g_ends.append(torch.addcmul(g[:, lane], whole[:, lane], g_ends[-1]))
    g = torch.stack(g_ends[::-1], 1)
    g_inputs, g_dt = torch.empty_like(segment.x), torch.empty_like(segment.x)
    g_B, g_A = torch.empty_like(segment.B), torch.zeros_like(g)
    for step in reversed(range(segment.steps)):
        g.addcmul_(C[:, :, step], gy[:, :, step].unsqueeze(2))
        g_B[:, :, step] = (g @ segment.inputs[:, :, step].unsqueeze(3)).squeeze(3)
        g_inputs[:, :, step] = (B[:, :, step].transpose(2, 3) @ g).squeeze(2)
        g.mul_(decays[step])
        g_log = states[step].mul_(g)  # of dt A
        g_A.addcmul_(g_log, segment.dt[:, :, step].unsqueeze(2))
        g_dt[:, :, step] = g_log.mul_(segment.A).sum(2)
    return g_inputs, g_dt, g_A.sum((0, 1)), g_B, g_C, g[:, 0]


@_gradients.register_fake
def _(gy, g_last, x, dt, A, B, C, D, before, kept):
    like = (x, dt, A, B, C, g_last)
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in like)


def _setup(ctx, inputs, output):
    x, dt, A, B, C, D, _, kept = inputs
    ctx.save_for_backward(x, dt, A, B, C, D, output[2], kept)
    ctx.mark_non_differentiable(output[2])


def _backward(ctx, gy, g_last, _):
    saved = ctx.saved_tensors  # once: gradient checkpointing hands each out a single time
    x, _, _, _, _, D, _, _ = saved
    *grads, g_initial = _gradients(gy, g_last, *saved)
    g_D = None if D is None else (gy * x).sum((0, 1), dtype=torch.float32)
    return *grads, g_D, g_initial, None


_scan.register_autograd(_backward, setup_context=_setup)
