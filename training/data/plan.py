"""Which samples make a batch. A plan deals in tickets alone and can say at any batch how to go on behind it.

Here: `GroupedPlan`, padded batches of a map-style mixture, epoch by epoch. Packs and streams: see
`training.data.buffered_plan`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from training.data.collation import GroupedBatchSampler
from training.data.feed import Ticket
from training.data.sources import DataError

Rows = list[list[Ticket]]  # the samples of each row of a batch


class Plan(Protocol):
    """What `training.data.loader` gets its batches from."""

    def batches(self) -> Iterator[tuple[Rows, Any]]:
        """Endless: (a batch, the mark of the place behind it), from where the plan stands."""

    def mark(self) -> Any:
        """The place where the plan stands."""

    def state(self, mark: Any) -> dict:
        """JSON to go on behind `mark`, not older than the last `release`."""

    def load_state_dict(self, state: dict) -> None:
        """Stand where `state` says. DataError when it belongs to other data."""

    def release(self, mark: Any) -> None:
        """No `state` of an earlier mark will be asked for."""

    def report(self, mark: Any) -> dict:
        """Statistics of the batches up to `mark`."""


@dataclass(frozen=True)
class GroupedMark:
    """`batch` batches of `epoch` are done, after what `done` took from it: (width, steps) of other widths before."""

    epoch: int = 0
    batch: int = 0
    done: tuple[tuple[int, int], ...] = ()


class GroupedPlan:
    """The batches of `GroupedBatchSampler`, one epoch after the other."""

    def __init__(self, sampler: GroupedBatchSampler) -> None:
        self.sampler = sampler
        self._mark = GroupedMark()

    def batches(self) -> Iterator[tuple[Rows, GroupedMark]]:
        number = 0
        while True:
            epoch, first, done = self._mark.epoch, self._mark.batch, self._mark.done
            for batch, indices in enumerate(self.sampler.batches(epoch, done)):
                if batch < first:
                    continue
                rows = [[Ticket(number + i, epoch, index)] for i, index in enumerate(indices)]
                number += len(rows)
                self._mark = GroupedMark(epoch, batch + 1, done)
                yield rows, self._mark
            self._mark = GroupedMark(epoch + 1)

    def mark(self) -> GroupedMark:
        return self._mark

    def state(self, mark: GroupedMark) -> dict:
        return {
            "kind": "grouped",
            "epoch": mark.epoch,
            "batch": mark.batch,
            "done": [list(part) for part in mark.done],
            **self._facts(),
        }

    def _facts(self) -> dict:
        sampler = self.sampler
        return {
            "width": sampler.width,
            "accumulation": sampler.accumulation,
            "world_size": sampler.world_size,
            "size": sampler.size,
            "seed": sampler.seed,
            "group_by_length": sampler.lengths is not None,  # batch n is made of other samples then
        }

    def load_state_dict(self, state: dict) -> None:
        for key, mine in {"kind": "grouped", **self._facts()}.items():
            if key == "group_by_length" and key not in state:  # saved before this was noted
                continue
            if key not in ("width", "accumulation") and state.get(key) != mine:
                raise wrong_state(key, state.get(key), mine)
        batch, done = state["batch"], tuple(tuple(part) for part in state["done"])
        steps, within = divmod(batch, state["accumulation"])
        if state["width"] == self.sampler.width and not within:  # perhaps split otherwise over ranks and batches
            batch = steps * self.sampler.accumulation
        elif state["width"] != self.sampler.width or state["accumulation"] != self.sampler.accumulation:
            if within:
                raise wrong_state("accumulation", state["accumulation"], self.sampler.accumulation)
            batch, done = 0, (*done, (state["width"], steps)) if steps else done
        self._mark = GroupedMark(state["epoch"], batch, done)

    def release(self, mark: GroupedMark) -> None:
        """Nothing is kept."""

    def report(self, mark: GroupedMark) -> dict:
        return {}


def wrong_state(key: str, found: Any, mine: Any) -> DataError:
    """The error of a saved data position that does not belong to this run."""
    return DataError(
        f"the saved data position has {key} = {found!r}, this run has {mine!r}: resume with the data settings it was "
        "saved with, or start over from its weights with model=CHECKPOINT and another output_dir"
    )
