"""bf16 training with fp32 weights behind it: what is held, and what is written.

An update of 1e-6 of a weight is lost in bf16, which has 8 bits. So the weights that the optimizer moves are fp32: under
DeepSpeed's ZeRO its own copies, without DeepSpeed the model's, which then runs under autocast. Checkpoints keep them;
a finished stage is written in bf16.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def written_in_bf16(model: nn.Module) -> Iterator[None]:
    """Inside, weights held in fp32 are bf16, but for those that are fp32 in every checkpoint; then as they were."""
    kept = tuple(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    before = {}
    for name, parameter in model.named_parameters():
        if parameter.dtype == torch.float32 and not any(word in name for word in kept):
            before[parameter] = parameter.data
            parameter.data = parameter.data.bfloat16()
    try:
        yield
    finally:
        for parameter, data in before.items():
            parameter.data = data
