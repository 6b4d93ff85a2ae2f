"""``llm.ssd_scan`` for autograd: a sequence is cut into blocks of chunks, forward and backward walk over them.

Only the inputs are saved; backward runs the states once more, then the blocks from the last to the first. Eager code
and compiled GPU code use the autograd function (a GPU compiler fuses what is in it); compiled CPU code calls the same
walk as one opaque operator, because blocks in cache, one after the other, beat what the compiler makes of them there.
"""

from contextlib import nullcontext

import torch

from llm.ssd_block import Block, block_gradients, block_outputs, block_states, make_block

# Decays (heads x positions x positions) that are formed at a time. On CPUs they then stay in cache from one operation
# to the next; elsewhere they only have to fit, 256 MB for each of about four such tensors.
_DECAYS_AT_ONCE = {"cpu": 1 << 19, "other": 1 << 26}

# (rows of the batch, positions, chunks) of a block
Part = tuple[slice, slice, int]


def scan_chunks(
    x: torch.Tensor,
    dt: torch.Tensor,
    log_decay: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    initial: torch.Tensor,
    runs: torch.Tensor | None,
    chunk_size: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs (B, L, G, R, P) in the dtype of ``x`` and the last state (B, G, R, P, N).

    Args:
        x: (B, L, G, R, P), heads by group. dt, log_decay: (B, L, G, R) fp32, steps and the logs of what they keep.
        B, C: (B, L, G, N). D: (G, R, 1 or P) fp32. initial: (B, G, R, P, N) fp32. runs: (B, L), see ``sample_runs``.
    """
    opaque = torch.compiler.is_compiling() and x.device.type == "cpu"
    return (_opaque_scan if opaque else _Scan.apply)(x, dt, log_decay, B, C, D, initial, runs, chunk_size)


def _forward(x, dt, log_decay, B, C, D, initial, runs, chunk_size):
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    lasts = []
    with _no_autocast(x.device):
        for parts in _parts(x, chunk_size):
            state = initial[parts[0][0]]
            for part in parts:
                block = _block(part, x, dt, log_decay, B, C, D, runs)
                states, state = block_states(block, state)
                _cut(y, part).copy_(block_outputs(block, states))
            lasts.append(state)
    return y, torch.cat(lasts)


def _backward(gy, g_last, x, dt, log_decay, B, C, D, initial, runs, chunk_size):
    """Gradients of x, dt, log_decay, B, C, D (None without one) and initial."""
    grads = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, dt, log_decay, B, C)]
    g_D = None if D is None else torch.zeros_like(D)
    g_initial = []
    with _no_autocast(x.device):
        for parts in _parts(x, chunk_size):
            known, state = [], initial[parts[0][0]]
            for part in parts:
                block = _block(part, x, dt, log_decay, B, C, D, runs)
                states, state = block_states(block, state)
                known.append((block, states))
            g_state = g_last[parts[0][0]]
            for part in reversed(parts):
                *found, g_more, g_state = block_gradients(*known.pop(), _cut(gy, part), g_state)
                for grad, piece in zip(grads, found):
                    _cut(grad, part).copy_(piece)
                g_D = None if D is None else g_D + g_more
            g_initial.append(g_state)
    return *grads, g_D, torch.cat(g_initial)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dt, log_decay, B, C, D, initial, runs, chunk_size):
        ctx.save_for_backward(x, dt, log_decay, B, C, D, initial, runs)
        ctx.chunk_size = chunk_size
        return _forward(x, dt, log_decay, B, C, D, initial, runs, chunk_size)

    @staticmethod
    def backward(ctx, gy, g_last):
        return *_backward(gy, g_last, *ctx.saved_tensors, ctx.chunk_size), None, None


@torch.library.custom_op("radio_vlm::ssd_scan", mutates_args=())
def _opaque_scan(
    x: torch.Tensor,
    dt: torch.Tensor,
    log_decay: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    initial: torch.Tensor,
    runs: torch.Tensor | None,
    chunk_size: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    return _forward(x, dt, log_decay, B, C, D, initial, runs, chunk_size)


@_opaque_scan.register_fake
def _(x, dt, log_decay, B, C, D, initial, runs, chunk_size):
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(initial)


@torch.library.custom_op("radio_vlm::ssd_scan_backward", mutates_args=())
def _opaque_backward(
    gy: torch.Tensor,
    g_last: torch.Tensor,
    x: torch.Tensor,
    dt: torch.Tensor,
    log_decay: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    initial: torch.Tensor,
    runs: torch.Tensor | None,
    chunk_size: int,
) -> list[torch.Tensor]:
    grads = _backward(gy, g_last, x, dt, log_decay, B, C, D, initial, runs, chunk_size)
    return [grad for grad in grads if grad is not None]


@_opaque_backward.register_fake
def _(gy, g_last, x, dt, log_decay, B, C, D, initial, runs, chunk_size):
    like = (x, dt, log_decay, B, C, D, initial)
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in like if t is not None]


def _opaque_setup(ctx, inputs, output):
    *tensors, ctx.chunk_size = inputs
    ctx.save_for_backward(*tensors)


def _opaque_gradients(ctx, gy, g_last):
    saved = ctx.saved_tensors  # once: gradient checkpointing hands each out a single time
    grads = _opaque_backward(gy, g_last, *saved, ctx.chunk_size)
    if saved[5] is None:
        grads.insert(5, None)
    return *grads, None, None


_opaque_scan.register_autograd(_opaque_gradients, setup_context=_opaque_setup)


def _no_autocast(device: torch.device):
    """Products keep the types of their operands. The meta device, on which `radio-vlm plan` runs models, knows none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _parts(x: torch.Tensor, chunk_size: int) -> list[list[Part]]:
    """Blocks in order of position, one list for each set of rows; the last block may be a single shorter chunk."""
    batch, length, groups, repeats, _ = x.shape
    whole = length // chunk_size
    rows, at_once = batch, max(1, whole)
    if not torch.compiler.is_compiling():  # a compiled graph would repeat every block, so it has one
        most = _DECAYS_AT_ONCE["cpu" if x.device.type == "cpu" else "other"]
        decays = groups * repeats * min(chunk_size, length) ** 2
        rows = max(1, min(batch, most // decays))
        at_once = max(1, most // (decays * rows))
    parts = []
    for row in range(0, batch, rows):
        found = []
        for first in range(0, whole, at_once):
            count = min(at_once, whole - first)
            found.append((slice(row, row + rows), slice(first * chunk_size, (first + count) * chunk_size), count))
        if whole * chunk_size < length:
            found.append((slice(row, row + rows), slice(whole * chunk_size, length), 1))
        parts.append(found)
    return parts


def _cut(t: torch.Tensor, part: Part) -> torch.Tensor:
    """(B, L, ...) -> (b, n, l, ...), a view."""
    rows, positions, chunks = part
    return t[rows, positions].unflatten(1, (chunks, -1))


def _block(part: Part, x, dt, log_decay, B, C, D, runs) -> Block:
    rows, positions, _ = part
    before = None if runs is None else runs[rows, max(positions.start - 1, 0)]
    cuts = [None if t is None else _cut(t, part) for t in (x, dt, log_decay, B, C, runs)]
    return make_block(*cuts, before=before, D=D, matmul=_type_of_products(x))


def _type_of_products(x: torch.Tensor) -> torch.dtype:
    """bf16 where that is the fast path; fp16 could not hold the states."""
    return torch.bfloat16 if x.dtype == torch.bfloat16 and x.device.type != "cpu" else torch.float32
