"""What the meta device cannot run as a GPU would, replaced by functions that hold the same memory: attention that keeps
its inputs, output and one number a row, and the loss that forms gradients chunk by chunk.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from llm.linear_cross_entropy_paths import CHUNK_BYTES


class _Attention(torch.autograd.Function):
    """Flash and memory-efficient attention on GPUs, and torch's fused one on CPUs, all save exactly this."""

    @staticmethod
    def forward(ctx, query, key, value):
        batch, heads, length, _ = query.shape
        output = query.new_empty(batch, length, heads, value.shape[3]).transpose(1, 2)
        ctx.save_for_backward(query, key, value, output, query.new_empty(batch, heads, length, dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx, gradient):
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    return _Attention.apply(query, key, value)


class _ChunkedLoss(torch.autograd.Function):
    """`llm.linear_cross_entropy`: gradients of hidden states and head are formed in the forward and held."""

    @staticmethod
    def forward(ctx, hidden, weight):
        rows = min(hidden.shape[0], max(1, CHUNK_BYTES // (4 * weight.shape[0])))
        buffer = hidden.new_empty(rows, weight.shape[0])
        logits = buffer.float() if hidden.dtype != torch.float32 else torch.empty_like(buffer)
        ctx.of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        total = torch.empty_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        ctx.of_weight = total if total is None or weight.dtype == torch.float32 else total.to(weight.dtype)
        del logits, buffer
        return hidden.new_empty((), dtype=torch.float32)

    @staticmethod
    def backward(ctx, gradient):
        found, ctx.of_hidden, ctx.of_weight = (ctx.of_hidden, ctx.of_weight), None, None
        return found


def planned_loss(hidden: torch.Tensor, head: torch.nn.Module) -> torch.Tensor:
    """A loss () of (B, L, D) hidden states that holds what the real one holds, every position labelled."""
    return _ChunkedLoss.apply(hidden.flatten(0, 1), head.weight)


@contextmanager
def stand_ins() -> Iterator[None]:
    """Inside, attention of models on the meta device costs what the fused kernels cost."""
    with (
        mock.patch("torch.nn.functional.scaled_dot_product_attention", _attention),
        mock.patch("transformers.masking_utils.is_tracing", lambda *_: True),  # masks are made, their values not read
    ):
        yield
