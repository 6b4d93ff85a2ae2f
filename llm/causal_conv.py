"""The short causal convolution of Mamba mixers, as a sum of shifted copies: on CPUs several times faster than a grouped
conv1d, and able to keep packed samples apart, which conv1d is not. ``F.conv1d`` on every sample alone is its slow twin.
"""

import torch
import torch.nn.functional as F

from llm.sample_runs import sample_runs


def causal_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    seq_idx: torch.Tensor | None = None,
    initial: torch.Tensor | None = None,
) -> torch.Tensor:
    """Depthwise causal convolution ``y_t = bias + Σ_k weight[:, K-1-k] x_{t-k}``, no activation; sums are fp32.

    Args:
        x: (B, L, D). weight: (D, K). bias: (D,). seq_idx: (B, L) integers, equal inside one packed sample: taps never
            reach into another one.
        initial: (B, K - 1, D), the inputs before position 0, which belong to the sample of position 0; zeros if None.

    Returns:
        (B, L, D) in the dtype of ``x``.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    batch, length, width = x.shape
    if weight.dim() != 2 or weight.shape[0] != width:
        raise ValueError(
            f"the weight is of shape {tuple(weight.shape)}, the input has {width} channels: give (channels, taps), "
            "e.g. conv1d.weight.squeeze(1)"
        )
    taps = weight.shape[1]
    if initial is None:
        context = F.pad(x, (0, 0, taps - 1, 0))
    elif initial.shape == (batch, taps - 1, width):
        context = torch.cat([initial.to(x.dtype), x], 1)
    else:
        raise ValueError(
            f"initial is of shape {tuple(initial.shape)}, {taps} taps over an input {tuple(x.shape)} look back on "
            f"{(batch, taps - 1, width)}"
        )
    runs = sample_runs(seq_idx, x)
    weight = weight.float()
    y = x * weight[:, taps - 1]
    if bias is not None:
        y = y + bias.float()
    for back in range(1, taps):
        past = context[:, taps - 1 - back : taps - 1 - back + length]
        if runs is None:
            y = torch.addcmul(y, past, weight[:, taps - 1 - back])
        else:
            same = runs == F.pad(runs, (back, 0))[:, :length]  # run 0 as well for what comes before position 0
            y = torch.addcmul(y, past * weight[:, taps - 1 - back], same.unsqueeze(2).to(y.dtype))
    return y.to(x.dtype)
