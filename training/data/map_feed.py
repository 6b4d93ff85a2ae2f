"""The feed of a map-style mixture: the orders of all epochs laid end to end, of which rank r takes every W-th sample.

After a change of the number of ranks a feed first hands out its share of what the old ranks had left over (`backlog`),
then goes on behind the furthest of them.
"""

from collections.abc import Callable, Iterator

import numpy as np

from training.data.feed import Ticket
from training.data.sources import DataError


class MapFeed:
    """Tickets of one rank.

    order: epoch -> (N,) static indices, N the same for every epoch. seed: of these orders; a state of another seed or
    size is refused.
    """

    def __init__(
        self, order: Callable[[int], np.ndarray], rank: int = 0, world_size: int = 1, seed: int = 0
    ) -> None:
        if not 0 <= rank < world_size:
            raise DataError(f"rank {rank} is none of {world_size}")
        self.order, self.rank, self.world_size, self.seed = order, rank, world_size, seed
        self.size = len(order(0))
        self._number = 0
        self._start = 0  # place of ticket 0 of rank 0, after the backlog
        self._backlog: list[int] = []
        self._epoch: tuple[int, np.ndarray] | None = None

    def __iter__(self) -> Iterator[Ticket]:
        while True:
            number = self._number
            self._number += 1
            epoch, offset = divmod(place(self._facts(), number), self.size)
            yield Ticket(number, epoch, int(self._epoch_order(epoch)[offset]))

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self.order(epoch)
        return self._epoch[1]

    def _facts(self) -> dict:
        return {"rank": self.rank, "world_size": self.world_size, "start": self._start, "backlog": self._backlog}

    def state(self, number: int) -> dict:
        """See `Feed`; `backlog` holds places in the endless order, at most a few buffers of them."""
        return {"kind": "map", "number": number, "seed": self.seed, "size": self.size, **self._facts()}

    def restore(self, state: dict) -> None:
        """See `Feed`."""
        for key, mine in (("kind", "map"), ("seed", self.seed), ("size", self.size), ("world_size", self.world_size),
                          ("rank", self.rank)):  # fmt: skip
            if state.get(key) != mine:
                raise DataError(
                    f"the saved data position has {key} = {state.get(key)!r}, this run has {mine!r}: resume with the "
                    "sources, seed and number of processes it was saved with"
                    + " (another number goes through training.data.resharding)" * (key in ("world_size", "rank"))
                )
        self._number, self._start, self._backlog = state["number"], state["start"], list(state["backlog"])

    def release(self, number: int) -> None:
        """Nothing is kept."""


def place(state: dict, number: int) -> int:
    """Place in the endless order of ticket `number` of a feed of this state."""
    behind = number - len(state["backlog"])
    if behind < 0:
        return state["backlog"][number]
    return state["start"] + state["rank"] + state["world_size"] * behind
