"""In which order a rank reads its samples: an endless, numbered sequence of tickets that can go on from any place.

A ticket says which sample to read; reading, measuring and packing happen elsewhere (worker processes, the packer), so
the order never depends on how many workers there are or how far they read ahead.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from training.data.sample import Sample


@dataclass(frozen=True)
class Ticket:
    """One sample to read.

    number: counts the tickets of this rank's feed from 0, without gaps. epoch: for choices drawn anew each epoch.
    index: static index in the mixture (map-style), else None. sample: the sample itself (streamed), else None.
    """

    number: int
    epoch: int
    index: int | None = None
    sample: Sample | None = None


class Feed(Protocol):
    """What `training.data.loader` reads tickets from."""

    def __iter__(self) -> Iterator[Ticket]:
        """Endless; goes on behind what was restored."""

    def state(self, number: int) -> dict:
        """JSON from which a fresh feed over the same sources goes on with ticket `number` (not below the last
        `release`)."""

    def restore(self, state: dict) -> None:
        """Go on from a `state`. Raises DataError when it belongs to other sources, seed or number of ranks."""

    def release(self, number: int) -> None:
        """No ticket below `number` will be asked for again: what was kept for them may go."""
