"""Sums and agreements over the processes of a run; alone, a process is its own sum."""

import torch


def several() -> bool:
    """Whether this process has peers that it can talk to."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def all_ranks(value: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over the ranks, in place."""
    if several():
        torch.distributed.all_reduce(value)
    return value


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on any rank; the same answer on all of them. Called by all ranks together."""
    return bool(all_ranks(torch.tensor(float(flag), device=device)).item() > 0)


def barrier() -> None:
    """Wait until every rank is here."""
    if several():
        torch.distributed.barrier()


def world_size() -> int:
    """Processes of the run."""
    return torch.distributed.get_world_size() if several() else 1


def gather_objects(value) -> list:
    """What every rank holds, in rank order, on every rank; picklable and small. Called by all ranks together."""
    if not several():
        return [value]
    gathered = [None] * world_size()
    torch.distributed.all_gather_object(gathered, value)
    return gathered


def is_first() -> bool:
    """Whether this is rank 0."""
    return not several() or torch.distributed.get_rank() == 0
