"""Rows from a buffer of measured tickets, for any feed: packed, or padded batches of similar length.

Everything here is small integers, so the place behind any batch is a few kilobytes of JSON: how far the feed was read,
and which of the tickets read are still to come.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from training.data.feed import Feed, Ticket
from training.data.packing import Item, PackingStatistics, pack
from training.data.plan import Rows, wrong_state
from training.data.sources import DataError
from vlm.errors import SampleError
from vlm.prompt_sizes import PromptSize

MOST_BAD = 100_000  # in a row; fewer is what data.bad_share_limit is for
Measure = Callable[[Iterable[Ticket]], Iterator[tuple[Ticket, PromptSize | None]]]  # None: a bad sample


@dataclass(frozen=True)
class Held:
    """A ticket that was read and not handed out, with its size."""

    ticket: Ticket
    item: Item


class Arrangement(Protocol):
    """How a full buffer becomes rows."""

    name: str
    buffer: int

    def __call__(self, items: Sequence[Item], waited: int, turn: int) -> tuple[list[list[Item]], list[Item]]:
        """(rows, samples that wait) of items in order of age, the first `waited` of which waited before."""


@dataclass(frozen=True)
class PackedRows:
    """Packs of `pack_length` tokens."""

    pack_length: int
    buffer: int
    name: str = "packs"

    def __call__(self, items, waited, turn):
        return pack(items, self.pack_length, waited)


@dataclass(frozen=True)
class LengthGroups:
    """Padded batches: the buffer sorted by length, cut into batches, in random order. One row a batch here: the loader
    makes a row of every sample of it."""

    batch_size: int
    buffer: int
    seed: int = 0
    name: str = "groups"

    def __call__(self, items, waited, turn):
        ordered = sorted(items, key=lambda item: (-item.tokens, item.number))
        whole = len(ordered) // self.batch_size * self.batch_size
        groups = [ordered[start : start + self.batch_size] for start in range(0, whole, self.batch_size)]
        mixed = np.random.default_rng([self.seed, 3, turn]).permutation(len(groups))
        return [groups[i] for i in mixed], sorted(ordered[whole:], key=lambda item: item.number)


@dataclass(frozen=True)
class BufferMark:
    """Tickets below `next` were read; of them those in `waiting` (the first `waited` waited before) and in the `rows`
    laid out in this round are still to come."""

    next: int
    waiting: tuple[int, ...]
    waited: int
    rows: tuple[tuple[int, ...], ...]
    turn: int
    statistics: PackingStatistics | None

    @property
    def oldest(self) -> int:
        return min([self.next, *self.waiting, *(number for row in self.rows for number in row)])


class BufferedPlan:
    """Rows from a buffer of measured tickets of any feed.

    While the rows of a round are handed out, as many tickets are read as leave: the next round starts with a full
    buffer and without a pause.

    Args:
        measure: Tickets -> (ticket, size) in the same order, None for a bad one, which is left out.
        rows: Of a batch.
    """

    def __init__(self, feed: Feed, measure: Measure, arrange: Arrangement, rows: int = 1) -> None:
        self.feed, self.measure, self.arrange, self.rows = feed, measure, arrange, rows
        length = getattr(arrange, "pack_length", None)
        self.statistics = PackingStatistics(length) if length else None
        self._sized: Iterator[tuple[Ticket, PromptSize | None]] | None = None
        self._next = self._turn = self._waited = 0
        self._waiting: list[Held] = []
        self._rows: list[list[Held]] = []

    def batches(self) -> Iterator[tuple[Rows, BufferMark]]:
        if self._sized is None:
            self._sized = self.measure(iter(self.feed))
        while True:
            batch = []
            for _ in range(self.rows):
                while not self._rows:
                    self._round()
                row = self._rows.pop(0)
                if self.statistics is not None:
                    self.statistics.add([held.item for held in row])
                self._read(len(row))
                batch.append([held.ticket for held in row])
            yield batch, self.mark()

    def _read(self, count: int) -> None:
        """`count` good tickets more wait."""
        bad = 0
        while count > 0:
            ticket, size = next(self._sized)
            self._next = ticket.number + 1
            if size is not None:
                self._waiting.append(Held(ticket, Item(ticket.number, size.tokens, size.media_tokens)))
                count, bad = count - 1, -1
            bad += 1
            if bad > MOST_BAD:
                message = f"no sample of the training set can be used: {bad} in a row are bad"
                raise SampleError(message, reason="no_samples")

    def _round(self) -> None:
        """Lays out what waits; reads on where that is too little for a row."""
        self._read(max(self.arrange.buffer - len(self._waiting), 0 if self._waiting else 1))
        by_number = {held.item.number: held for held in self._waiting}
        rows, left = self.arrange([held.item for held in self._waiting], self._waited, self._turn)
        self._turn += 1
        self._rows = [[by_number[item.number] for item in row] for row in rows]
        self._waiting = [by_number[item.number] for item in left]
        self._waited = len(left)
        if not rows:
            self._read(self.arrange.buffer)

    def mark(self) -> BufferMark:
        numbers = tuple(held.item.number for held in self._waiting)
        rows = tuple(tuple(held.item.number for held in row) for row in self._rows)
        return BufferMark(self._next, numbers, self._waited, rows, self._turn, copy(self.statistics))

    def state(self, mark: BufferMark) -> dict:
        return {
            "kind": self.arrange.name,
            "next": mark.next,
            "waiting": list(mark.waiting),
            "waited": mark.waited,
            "rows": [list(row) for row in mark.rows],
            "turn": mark.turn,
            "statistics": None if mark.statistics is None else vars(mark.statistics).copy(),
            "feed": self.feed.state(mark.oldest),
        }

    def load_state_dict(self, state: dict) -> None:
        """Reads the held tickets again; what waits is measured again, since a size is not worth saving."""
        if state.get("kind") != self.arrange.name:
            raise wrong_state("kind", state.get("kind"), self.arrange.name)
        saved = state["statistics"]
        if self.statistics is not None and saved["pack_length"] != self.statistics.pack_length:
            raise wrong_state("pack_length", saved["pack_length"], self.statistics.pack_length)
        self.feed.restore(state["feed"])
        tickets = iter(self.feed)
        held = {*state["waiting"], *(number for row in state["rows"] for number in row)}
        first = min([state["next"], *held])
        read = (next(tickets) for _ in range(first, state["next"]))  # one by one: their pictures may fill the memory
        kept = {ticket.number: ticket for ticket in read if ticket.number in held}
        sizes = {t.number: size for t, size in self.measure(iter([kept[number] for number in sorted(held)]))}
        gone = [number for number in held if sizes[number] is None]
        if gone:
            raise DataError(
                f"{len(gone)} samples that waited when the data position was saved cannot be read any more; resume "
                "with the data it was saved with"
            )
        items = {n: Held(kept[n], Item(n, sizes[n].tokens, sizes[n].media_tokens)) for n in held}
        self._waiting = [items[number] for number in state["waiting"]]
        self._rows = [[items[number] for number in row] for row in state["rows"]]
        self._next, self._waited, self._turn = state["next"], state["waited"], state["turn"]
        if self.statistics is not None:
            self.statistics = PackingStatistics(**saved)
        self._sized = self.measure(tickets)

    def release(self, mark: BufferMark) -> None:
        self.feed.release(mark.oldest)

    def report(self, mark: BufferMark) -> dict:
        if mark.statistics is None:
            return {}
        return {"packing": mark.statistics.report(len(mark.waiting) + sum(map(len, mark.rows)))}
