"""Sums over the processes of a run; alone, a process is its own sum."""

import torch


def all_ranks(value: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over the ranks, in place."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(value)
    return value
