"""Several processes that share the questions: `accelerate launch eval/run.py …` or `torchrun … eval/run.py …`.

Every process holds the whole model and answers every n-th question; afterwards each knows all answers, so tasks need
not know that there are several. One process needs no accelerate.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")


class Ranks:
    """One process of one."""

    rank, size = 0, 1
    device: Any = None  # None: the caller decides

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part."""
        return list(items[self.rank :: self.size])

    def gather(self, items: list[T]) -> list[T]:
        """The parts of all processes, put back in order: the inverse of `share`."""
        return items

    def of_all(self, item: T) -> list[T]:
        """What each process holds, by rank."""
        return [item]

    def wait(self) -> None:
        """Until all processes are here."""


class AccelerateRanks(Ranks):
    """One process of several, joined through accelerate."""

    def __init__(self, cpu: bool) -> None:
        from accelerate import PartialState

        # A process whose questions were short waits for the slowest: longer than the ten minutes of the default.
        self._state = PartialState(cpu=cpu, timeout=timedelta(hours=24))
        self.rank, self.size, self.device = self._state.process_index, self._state.num_processes, self._state.device

    def gather(self, items: list[T]) -> list[T]:
        parts = self.of_all(items)
        longest = max(map(len, parts))
        return [part[place] for place in range(longest) for part in parts if place < len(part)]

    def of_all(self, item: T) -> list[T]:
        from accelerate.utils import gather_object

        return gather_object([item])

    def wait(self) -> None:
        self._state.wait_for_everyone()


def join_ranks(world_size: int, cpu: bool = False) -> Ranks:
    """The processes of this launch, on their CPUs or each on a GPU of its own.

    Raises ValueError when there are several and accelerate is missing or does not join them.
    """
    if world_size == 1:
        return Ranks()
    try:
        ranks = AccelerateRanks(cpu)
    except ImportError as error:
        raise ValueError("several processes need accelerate: pip install accelerate") from error
    if ranks.size != world_size:
        raise ValueError(f"{world_size} processes were started, but accelerate joined {ranks.size}")
    return ranks
