"""The arithmetic a batch asks of a model, for the model-flops utilisation (MFU).

Useful work alone is counted, as the term is used elsewhere: padding and what activation checkpointing repeats are not.
"""

from collections.abc import Callable

import torch
from torch import nn

from training.flops import ModelFlops, device_tflops


def batch_flops(model: nn.Module) -> Callable[[dict], float]:
    """batch -> floating-point operations of its forward and backward pass, by what trains of the model now."""
    flops = ModelFlops(model)

    def count(batch: dict) -> float:
        lengths = sample_lengths(batch)
        labelled = int(batch["labels"].ne(-100).sum()) if batch.get("labels") is not None else None
        patches = sum(len(batch[key]) for key in ("pixel_values", "pixel_values_videos") if batch.get(key) is not None)
        return flops.step(sum(lengths), patches, lengths, _picture_lengths(batch, patches), labelled)

    return count


def sample_lengths(batch: dict) -> list[int]:
    """Tokens of each sample of a padded or packed batch, padding left out."""
    mask = batch.get("attention_mask")
    real = torch.ones_like(batch["input_ids"], dtype=torch.bool) if mask is None else mask.ne(0)
    if batch.get("seq_idx") is None:
        return real.sum(-1).tolist()
    lengths = []
    for numbers, there in zip(batch["seq_idx"], real, strict=True):
        lengths += torch.unique_consecutive(numbers[there], return_counts=True)[1].tolist()
    return lengths


def _picture_lengths(batch: dict, patches: int) -> list[int] | None:
    """Patches of each map the encoder sees; None where the grids name only one of several scales."""
    lengths = [h * w for h, w in _rows(batch, "image_grid_hw")]
    lengths += [h * w for t, h, w in _rows(batch, "video_grid_thw") for _ in range(t)]
    return lengths if sum(lengths) == patches else None


def _rows(batch: dict, key: str) -> list[list[int]]:
    return [] if batch.get(key) is None else batch[key].tolist()


def peak_tflops(device: torch.device, given: float | None) -> float | None:
    """Peak of a device: what the recipe says, else what is known of the GPU by its name."""
    if given is not None or device.type != "cuda":
        return given
    return device_tflops(torch.cuda.get_device_name(device))
