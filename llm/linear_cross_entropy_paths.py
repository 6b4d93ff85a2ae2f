"""The ways to the sum of a linear cross entropy and its gradients without all logits: our chunk loop for everything,
torch's own (2.13) for the plain case in fp32, Liger's kernel on CUDA. The result is one number, so gradients are formed
in the forward, chunk by chunk, and no logits are computed twice.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from llm.kernels import kernel

CHUNK_BYTES = 128 << 20  # of one chunk's fp32 logits: 256 rows of a 131,072 vocabulary
WEIGHT_ROWS = 16384  # rows of a low-precision weight gradient formed at once before they are added in fp32

Gradients = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]  # of hidden, weight, bias


def math_dtype(dtype: torch.dtype) -> torch.dtype:
    """What losses of inputs of this dtype are computed in: fp32, or fp64 for fp64."""
    return torch.promote_types(dtype, torch.float32)


class GradientsInForward(torch.autograd.Function):
    """``sum(w * nll + z * logsumexp²)`` over rows; see ``linear_cross_entropy_sum`` for what the arguments mean.

    The gradients are held from the forward on (they are what the backward would allocate) and given away at the first
    backward, so nothing is held twice. A second backward through a retained graph computes them again.
    """

    @staticmethod
    def forward(
        ctx, hidden, weight, bias, labels, token_weights, z_weights, token_losses, scale, softcap, uniform,
        with_gradients,
    ):  # fmt: skip
        needs = tuple(with_gradients and need for need in ctx.needs_input_grad[:3])
        ctx.save_for_backward(hidden, weight, bias, labels, token_weights, z_weights)
        ctx.settings = (scale, softcap, uniform, needs)
        value, ctx.gradients = _value_and_gradients(
            hidden, weight, bias, labels, token_weights, z_weights, *ctx.settings, token_losses
        )
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        # The first backward does not touch what was saved: under ZeRO-3 the weight is no longer gathered by then.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, gradients = _value_and_gradients(*ctx.saved_tensors, *ctx.settings)
        scaled = [None if gradient is None else gradient.mul_(upstream) for gradient in gradients]
        return *scaled, *[None] * 8


def _value_and_gradients(
    hidden, weight, bias, labels, token_weights, z_weights, scale, softcap, uniform, needs, token_losses=None
) -> tuple[torch.Tensor, Gradients]:
    """Picks the rows that count, then the fastest path that covers the case. `token_losses` (rows,) is filled with each
    row's own cross entropy, which only our loop knows: the others give sums."""
    inputs = [hidden.detach(), weight.detach(), None if bias is None else bias.detach()]
    counted = token_weights != 0 if z_weights is None else (token_weights != 0) | (z_weights != 0)
    rows = counted.nonzero().squeeze(1)
    if len(rows) == len(counted):
        rows = None
    else:
        inputs[0] = inputs[0][rows]
        labels, token_weights = labels[rows], token_weights[rows]
        z_weights = None if z_weights is None else z_weights[rows]
    liger = kernel("liger_linear_cross_entropy", hidden.device)
    plain = uniform and z_weights is None and token_losses is None and len(labels) > 0
    if plain and liger is not None and scale == 1:
        value, gradients = _by_liger(liger, *inputs, labels, softcap, needs)
    elif plain and _torch_covers(weight.dtype) and softcap is None:
        value, gradients = _by_torch(*inputs, labels, scale, needs)
    else:
        value, gradients, each = _by_chunks(*inputs, labels, token_weights, z_weights, scale, softcap, needs)
        if token_losses is not None:
            token_losses[slice(None) if rows is None else rows] = each.masked_fill(token_weights == 0, 0)
    of_hidden, *others = gradients
    if rows is not None and of_hidden is not None:
        of_hidden = torch.zeros_like(hidden).index_copy_(0, rows, of_hidden.to(hidden.dtype))
    return value, (of_hidden, *others)


def _rows_per_chunk(vocabulary: int) -> int:
    return max(1, CHUNK_BYTES // (4 * vocabulary))


def _by_chunks(
    hidden, weight, bias, labels, token_weights, z_weights, scale, softcap, needs
) -> tuple[torch.Tensor, Gradients, torch.Tensor]:
    """Our loop: any dtype, device, weights and options; also gives each row's cross entropy, unweighted.

    The weight's gradient is summed over chunks in fp32 also for a bf16 weight (4 bytes a parameter during this call, 2
    after it): bf16 has 8 bits, so a sum over dozens of chunks kept in it would lose most of what each chunk adds.
    """
    dtype = math_dtype(weight.dtype)
    vocabulary, n = weight.shape[0], hidden.shape[0]
    step = min(_rows_per_chunk(vocabulary), max(n, 1))
    of_hidden = torch.empty_like(hidden) if needs[0] else None
    of_weight = torch.zeros_like(weight, dtype=dtype) if needs[1] else None
    of_bias = torch.zeros_like(bias, dtype=dtype) if needs[2] else None
    values, each = hidden.new_empty(n, dtype=dtype), hidden.new_empty(n, dtype=dtype)
    buffer = hidden.new_empty(step, vocabulary)
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        x, label, w = hidden[part], labels[part, None], token_weights[part]
        logits = torch.mm(x, weight.T, out=buffer[: len(x)]).to(dtype)
        if bias is not None:
            logits += bias
        if scale != 1:
            logits *= scale
        slope = None
        if softcap is not None:
            logits.div_(softcap).tanh_()
            slope = 1 - logits.square() if any(needs) else None
            logits *= softcap

        target = logits.gather(1, label).squeeze(1)
        top = logits.amax(1, keepdim=True)
        total = logits.sub_(top).exp_().sum(1, keepdim=True)
        logsumexp = (top + total.log()).squeeze(1)
        each[part] = logsumexp - target
        value, share = w * each[part], w
        if z_weights is not None:
            z = z_weights[part]
            value, share = value + z * logsumexp.square(), w + 2 * z * logsumexp
        values[part] = value
        if not any(needs):
            continue

        # from exp(logits - top) to the gradient of the logits as the matrix product gave them, in place
        gradient = logits.mul_(scale * share[:, None] / total)
        gradient.scatter_add_(1, label, -scale * w[:, None])
        if slope is not None:
            gradient *= slope
        if of_bias is not None:
            of_bias += gradient.sum(0)
        gradient = gradient.to(weight.dtype)
        if of_hidden is not None:
            torch.mm(gradient, weight, out=of_hidden[part])
        if of_weight is not None:
            _add_product(of_weight, gradient, x)
    if of_weight is not None and weight.dtype != torch.float16:  # fp16 ends at 65504: scaled by the caller's 1/N first
        of_weight = of_weight.to(weight.dtype)
    return values.sum(), (of_hidden, of_weight, of_bias), each


def _add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """``total += a.T @ b``, in the dtype of ``total``; products of a lower dtype are formed by blocks of rows."""
    if total.dtype == a.dtype:
        total.addmm_(a.T, b)
        return
    for start in range(0, total.shape[0], WEIGHT_ROWS):
        part = slice(start, start + WEIGHT_ROWS)
        total[part] += a[:, part].T @ b


def _torch_covers(dtype: torch.dtype) -> bool:
    """torch 2.13 and later, and no dtype below fp32: it returns the loss in the dtype of its inputs."""
    return hasattr(F, "linear_cross_entropy") and dtype in (torch.float32, torch.float64)


def _by_torch(hidden, weight, bias, labels, scale, needs) -> tuple[torch.Tensor, Gradients]:
    """torch's chunked loss. Its default chunk is 20 times slower on CPU, so the size is given; the scale goes into the
    rows and the bias, which multiplies the logits by it."""
    from torch.nn.modules.linear_cross_entropy_options import LinearCrossEntropyOptions

    options = LinearCrossEntropyOptions(batch_chunk_size=_rows_per_chunk(weight.shape[0]))

    def loss(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        value = F.linear_cross_entropy(x, w, labels, linear_bias=b, reduction="sum", options=options)
        # Its gradients are further outputs of its operator, and autograd would fill zeros of their size for the
        # upstream gradients they do not have: as much memory again as the weight's gradient.
        if hasattr(value.grad_fn, "set_materialize_grads"):
            value.grad_fn.set_materialize_grads(False)
        return value

    if scale != 1:
        hidden, bias = hidden * scale, None if bias is None else bias * scale
    value, (of_hidden, of_weight, of_bias) = _by_autograd(loss, hidden, weight, bias, needs)
    if scale != 1:
        of_hidden, of_bias = (g if g is None else g.mul_(scale) for g in (of_hidden, of_bias))
    return value, (of_hidden, of_weight, of_bias)


def _by_liger(liger: Callable, hidden, weight, bias, labels, softcap, needs) -> tuple[torch.Tensor, Gradients]:
    """Liger forms no gradient at all unless that of ``hidden`` is asked for, so it always is."""

    def loss(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        return liger(x, w, labels, bias=b, reduction="sum", softcap=softcap, accum_dtype=torch.float32)

    value, gradients = _by_autograd(loss, hidden, weight, bias, (any(needs), *needs[1:]))
    return value.to(math_dtype(weight.dtype)), (gradients[0] if needs[0] else None, *gradients[1:])


def _by_autograd(loss: Callable, hidden, weight, bias, needs) -> tuple[torch.Tensor, Gradients]:
    """Value and gradients of a foreign loss, at once, so that its own rules about a second backward do not reach us."""
    leaves = [None if t is None else t.detach().requires_grad_(need) for t, need in zip((hidden, weight, bias), needs)]
    wanted = [leaf for leaf, need in zip(leaves, needs) if need]
    with torch.set_grad_enabled(bool(wanted)):
        value = loss(*leaves)
    found = iter(torch.autograd.grad(value, wanted) if wanted else ())
    return value.detach(), tuple(next(found) if need else None for need in needs)
