"""Tickets from streamed sources: by weight, shuffled within blocks, and resumable to the ticket with a small state.

Every source is read a block at a time (`data.stream_block` records), a block is shuffled by seed, pass and number, and
the sources take turns so that after any number of tickets each has had its share to within one. A source that is no
stream takes part with full shuffled passes. Nothing is random but by the seed, so the state is where the current block
of each source began and how much of it was handed out.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np

from training.data.feed import Ticket
from training.data.sample import Sample
from training.data.sources import DataError, open_source, under_root
from training.data.streams import open_stream, readable

SLACK = 1e-9  # of shares, against rounding


class StreamFeed:
    """The Feed of one rank over sources of which some are streamed; see training.data.feed.

    sources: specs as `open_source` takes them. Several need a `weight` each: the size of a stream is unknown, and there
    is no epoch for `repeats` or `cap` to count in. Ticket.epoch is the pass over the ticket's own source.
    block: records read and shuffled at a time.
    """

    def __init__(
        self,
        sources: Sequence[dict[str, Any]],
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        root: str | Path | None = None,
        block: int = 1024,
    ):
        specs = [under_root(spec, root) for spec in sources]
        self.shares = shares_of(specs)
        self.lanes = [_lane(spec, number, seed, rank, world_size, block) for number, spec in enumerate(specs)]
        about = [{key: spec.get(key) for key in ("path", "subset", "split", "weight", "limit")} for spec in sources]
        self.identity = {"kind": "stream", "seed": seed, "rank": rank, "world_size": world_size, "block": block}
        self.identity["sources"] = [{key: str(value) for key, value in one.items() if value} for one in about]
        self.identity["sizes"] = [lane.size for lane in self.lanes]
        # What may still be asked for: the tickets from `_first` on, and the counts of each source before it.
        self._first, self._before = 0, [0] * len(specs)
        self._chosen: deque[int] = deque()

    def __iter__(self) -> Iterator[Ticket]:
        number = self._first + len(self._chosen)
        counts = self._counts(number)
        while True:
            source = turn(self.shares, counts, number)
            sample, epoch = self.lanes[source].next()
            counts[source] += 1
            self._chosen.append(source)
            yield Ticket(number, epoch, sample=sample)
            number += 1

    def state(self, number: int) -> dict:
        """JSON from which a fresh feed goes on with ticket `number`."""
        counts = self._counts(number)
        lanes = [lane.state(count) for lane, count in zip(self.lanes, counts)]
        return {**self.identity, "number": number, "counts": counts, "lanes": lanes}

    def restore(self, state: dict) -> None:
        """Go on from a `state`. Raises DataError when it belongs to other sources, sizes, seed, block or ranks."""
        for key, mine in self.identity.items():
            if state.get(key) != mine:
                raise DataError(
                    f"the saved data position has {key} = {state.get(key)!r}, this run has {mine!r}: streamed data go "
                    "on only with the sources, seed, data.stream_block and number of processes it was saved with; "
                    "resume with those, or start over from the weights with model=CHECKPOINT and another output_dir"
                )
        self._first, self._before, self._chosen = state["number"], list(state["counts"]), deque()
        for lane, count, saved in zip(self.lanes, state["counts"], state["lanes"]):
            lane.restore(count, saved)

    def release(self, number: int) -> None:
        """Forgets what only tickets below `number` needed."""
        self._before = self._counts(number)
        for _ in range(number - self._first):
            self._chosen.popleft()
        self._first = number
        for lane, count in zip(self.lanes, self._before):
            lane.release(count)

    def _counts(self, number: int) -> list[int]:
        """How many of the tickets below `number` came from each source."""
        if not self._first <= number <= self._first + len(self._chosen):
            raise DataError(f"ticket {number} is not among {self._first} to {self._first + len(self._chosen)}")
        counts = list(self._before)
        for _, source in zip(range(number - self._first), self._chosen):
            counts[source] += 1
        return counts


def shares_of(specs: Sequence[dict[str, Any]]) -> list[float]:
    """The share of each source, summing to 1. Raises DataError where sizes are unknown and weights missing."""
    for spec in specs:
        for key in ("repeats", "cap"):
            if spec.get(key) is not None:
                raise DataError(
                    f"{spec['path']}: `{key}` counts by epochs, and a mixture with a streamed source has none: use "
                    "`weight`"
                )
    if not specs:
        raise DataError("data.sources is empty")
    weights = [spec.get("weight") for spec in specs]
    if len(specs) == 1:
        return [1.0]
    if any(weight is None or not weight > 0 for weight in weights):
        missing = next(spec["path"] for spec, weight in zip(specs, weights) if weight is None or not weight > 0)
        raise DataError(
            f"{missing} has no `weight`: in a mixture with a streamed source, whose size is unknown, every source "
            "needs one"
        )
    return [weight / sum(weights) for weight in weights]


def with_replay(sources: list[dict], replay: list[dict], share: float) -> list[dict]:
    """One list of specs by weight, in which the replayed ones make `share` of the samples."""
    parts = ((sources, 1 - share), (replay, share))
    return [{**spec, "weight": part * weight} for specs, part in parts for spec, weight in zip(specs, shares_of(specs))]


def turn(shares: list[float], counts: list[int], number: int) -> int:
    """Which source ticket `number` comes from: counts never differ from shares * tickets by more than 1 - 1/(2S - 2)
    (Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980).
    """
    if len(shares) == 1:
        return 0
    least = 1 / (2 * len(shares) - 2)
    owed = [share * (number + 1) - count for share, count in zip(shares, counts)]
    able = [source for source, value in enumerate(owed) if value >= least - SLACK]
    return min(able, key=lambda source: ((1 - least - owed[source]) / shares[source], source))


def _lane(spec: dict[str, Any], number: int, seed: int, rank: int, world_size: int, block: int) -> "Lane":
    if spec.get("streaming"):
        return StreamLane(spec, number, seed, rank, world_size, block)
    return ShuffledLane(spec, number, seed, rank, world_size, block)


class Lane:
    """One source of the feed: an endless sequence of blocks, each found again from where it began.

    Subclasses read a block; the next one is read by a thread while this one is handed out.
    """

    FIRST: dict = {}  # where the first block begins
    size: str  # how much there is, in words: a place is good for data of this size alone

    def __init__(self, seed: int, block: int):
        self.seed, self.block = seed, block
        self._thread: ThreadPoolExecutor | None = None
        self._next: Future | None = None
        self.restore(0, {"start": self.FIRST, "skip": 0})
        LANES.add(self)

    def read(self, start: dict) -> tuple[list[tuple[Sample, int]], dict]:
        """The (sample, pass) pairs of the block that begins at `start`, and where the next one begins."""
        raise NotImplementedError

    def restore(self, count: int, saved: dict) -> None:
        """Go on with ticket `count` of this lane: `skip` tickets into the block that begins at `start`."""
        self.settle()
        self._count, self._skip = count, saved["skip"]
        self._blocks: deque[tuple[int, dict]] = deque([(count - saved["skip"], saved["start"])])
        self._items: list[tuple[Sample, int]] = []
        self._next = None
        self._begin: dict = saved["start"]

    def next(self) -> tuple[Sample, int]:
        """The next sample and its pass."""
        while self._skip >= len(self._items):
            self._advance()
        item = self._items[self._skip]
        self._items[self._skip] = None  # a sample may hold megabytes of pictures
        self._skip += 1
        self._count += 1
        return item

    def _advance(self) -> None:
        """Makes the next block the current one, and has the one behind it read."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stream")
        left = self._skip - len(self._items)  # more than a block when a restored place lies behind an empty one
        first = self._count - left
        self._items, self._begin = self._next.result() if self._next else self.read(self._begin)
        if self._items:  # known by its first beginning alone: states are the same however far was read
            self._blocks.append((first + len(self._items), self._begin))
        self._skip = left
        self._next = self._thread.submit(self.read, self._begin)

    def settle(self) -> None:
        """Returns when no block is being read."""
        if self._next is not None:
            wait([self._next])

    def state(self, count: int) -> dict:
        """From where `restore` goes on with ticket `count` of this lane."""
        first, start = next(block for block in reversed(self._blocks) if block[0] <= count)
        return {"start": start, "skip": count - first}

    def release(self, count: int) -> None:
        """Forgets the blocks that end before ticket `count`."""
        while len(self._blocks) > 1 and self._blocks[1][0] <= count:
            self._blocks.popleft()


# A process forked while a block is read would hold the reading thread's locks (of imports, say) for ever, so a fork,
# such as that of a loader's worker, waits for the blocks. Which lanes there are only the process as a whole can know.
LANES: WeakSet[Lane] = WeakSet()
os.register_at_fork(before=lambda: [lane.settle() for lane in list(LANES)])


class StreamLane(Lane):
    """A stream: blocks in the order in which they come, shuffled within."""

    FIRST = {"pass": 0, "block": 0, "position": None}

    def __init__(self, spec: dict[str, Any], number: int, seed: int, rank: int, world_size: int, block: int):
        self.stream = open_stream(spec, rank, world_size)
        self.size = self.stream.size
        self.key = (seed, 6, number, rank)
        super().__init__(seed, block)

    def read(self, start: dict) -> tuple[list[tuple[Sample, int]], dict]:
        samples, position, ended = self.stream.read(start["position"], self.block)
        if ended and not samples and start["block"] == 0:
            raise DataError(
                f"{self.stream.source.path} holds no records for rank {self.stream.rank} of {self.stream.world_size}: "
                f"{self.size}, read with limit = {self.stream.limit}, are too few for so many processes"
            )
        order = np.random.default_rng([*self.key, start["pass"], start["block"]]).permutation(len(samples))
        items = [(samples[place], start["pass"]) for place in order]
        if ended:
            return items, {"pass": start["pass"] + 1, "block": 0, "position": None}
        return items, {"pass": start["pass"], "block": start["block"] + 1, "position": position}


class ShuffledLane(Lane):
    """A source of known length: shuffled passes over all of it, dealt to the ranks in turn."""

    FIRST = {"ticket": 0}

    def __init__(self, spec: dict[str, Any], number: int, seed: int, rank: int, world_size: int, block: int):
        self.source = open_source(spec)
        limit = spec.get("limit")
        self.records = len(self.source) if limit is None else min(limit, len(self.source))
        self.size = f"{self.records} records"
        self.number, self.rank, self.world_size = number, rank, world_size
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))
        super().__init__(seed, block)

    def read(self, start: dict) -> tuple[list[tuple[Sample, int]], dict]:
        items = []
        for ticket in range(start["ticket"], start["ticket"] + self.block):
            turn_, place = divmod(ticket * self.world_size + self.rank, self.records)
            if self._order[0] != turn_:
                order = np.random.default_rng([self.seed, 2, self.number, turn_]).permutation(self.records)
                self._order = (turn_, order)
            items.append((readable(self.source, int(self._order[1][place])), turn_))
        return items, {"ticket": start["ticket"] + self.block}
