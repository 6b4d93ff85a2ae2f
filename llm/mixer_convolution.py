"""The convolution stage that Mamba-1 and Mamba-2 mixers share: padding kept out, the cache read and written, samples
kept apart, in causal-conv1d's kernel where it can do the job, else in `llm.causal_conv`.
"""

import torch
import torch.nn.functional as F
from torch import nn

from llm.causal_conv import causal_conv
from llm.kernels import kernel

# Of every family whose mixers use `convolve`.
LORA_REFUSED = {"conv1d": "the convolution is applied through its weight, never through its module"}


def mask_padding(x: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Zero the padded positions of (B, L, D); the mask is (B, L) or None."""
    return x if attention_mask is None else x * attention_mask.unsqueeze(-1).to(x.dtype)


def convolve(
    mixer: nn.Module,
    x: torch.Tensor,
    seq_idx: torch.Tensor | None,
    cache,
    attention_mask: torch.Tensor | None,
) -> torch.Tensor:
    """Causal depthwise convolution and activation of the projected (B, L, D).

    Args:
        mixer: has `conv1d`, `act`, `activation`, `conv_kernel_size` and `layer_idx`.
        seq_idx: (B, L) int32, equal inside one packed sample, or None.
        cache: transformers' cache, whose last inputs of this layer are read and written, or None.
        attention_mask: (B, L) with 0 at padding, or None. Applied behind the projection as well as behind the
            convolution: a projection with a bias turns padding into input.
    """
    x = mask_padding(x, attention_mask)
    left = _left_context(x, cache, mixer.layer_idx, mixer.conv_kernel_size)
    return mask_padding(_activated(mixer, x, seq_idx, left), attention_mask)


def _activated(mixer, x, seq_idx, left) -> torch.Tensor:
    conv1d = mixer.conv1d
    weight = conv1d.weight.squeeze(1)
    fused = kernel("causal_conv1d", x.device) if left is None and mixer.activation in ("silu", "swish") else None
    if fused is not None:
        # With seq_idx the kernel wants channels-last memory, which (B, L, D).transpose(1, 2) is.
        numbers = None if seq_idx is None else seq_idx.to(torch.int32).contiguous()
        return fused(x.transpose(1, 2), weight, conv1d.bias, seq_idx=numbers, activation="silu").transpose(1, 2)
    return mixer.act(causal_conv(x, weight, conv1d.bias, seq_idx, left))


def _left_context(x: torch.Tensor, cache, layer_idx: int, kernel_size: int) -> torch.Tensor | None:
    """Put (B, L, D) into the convolution cache and return the K-1 inputs that came before it, or None."""
    if cache is None:
        return None
    seen = cache.update_conv_state(x.transpose(1, 2), layer_idx, conv_kernel_size=kernel_size)
    before = seen[..., : seen.shape[-1] - x.shape[1]][..., 1 - kernel_size :]
    if before.shape[-1] == 0:
        return None
    missing = kernel_size - 1 - before.shape[-1]
    return F.pad(before, (missing, 0)).transpose(1, 2).to(x.dtype)
