"""Packed samples as a scan or a convolution needs them: the number of the sample that each position is in."""

import torch
import torch.nn.functional as F


def sample_runs(seq_idx: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor | None:
    """(B, L) int32, 0 for the first sample of a row and one more at every change of ``seq_idx``; None stays None.

    Two samples that carry the same number are told apart as long as another lies between them.

    Args:
        seq_idx: (B, L) integers, equal inside one packed sample. x: (B, L, ...), the input it describes.

    Raises:
        ValueError: ``seq_idx`` is of another shape than (B, L), or not of an integer type.
    """
    if seq_idx is None:
        return None
    if seq_idx.shape != x.shape[:2]:
        raise ValueError(
            f"seq_idx is of shape {tuple(seq_idx.shape)}, the input has (batch, length) {tuple(x.shape[:2])}: "
            "give one sample number for every position"
        )
    if seq_idx.is_floating_point() or seq_idx.is_complex() or seq_idx.dtype == torch.bool:
        raise ValueError(f"seq_idx is of type {seq_idx.dtype}: sample numbers are integers, give int32 or int64")
    changes = seq_idx[:, 1:] != seq_idx[:, :-1]
    return F.pad(changes.cumsum(1, dtype=torch.int32), (1, 0))
