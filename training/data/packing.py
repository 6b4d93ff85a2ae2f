"""Which samples share a row: whole samples laid end to end in rows of `pack_length` tokens, chosen from a buffer.

Plain integers in, plain integers out, the same on every machine. A round lays out a whole buffer at once: the number of
rows is what its tokens can fill, samples go longest first into the row with the least (a balanced knapsack: rows of a
round hold about as many tokens and media tokens), and what fits nowhere waits for the next round, where it goes first,
the oldest before all others. So nothing starves, and a resumed run has little to read again.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

GOOD_FILL = 0.97


@dataclass(frozen=True)
class Item:
    """A sample to lay out: the ticket's number (smaller is older), tokens, and how many of them are media tokens."""

    number: int
    tokens: int
    media_tokens: int = 0


def pack(items: Sequence[Item], pack_length: int, waited: int = 0) -> tuple[list[list[Item]], list[Item]]:
    """One round: (rows, samples that wait), both from oldest to newest.

    Args:
        items: In order of age; none longer than `pack_length`.
        waited: The first so many were left over by the round before: they are laid out first.

    Rows are balanced; where that fills badly, best fit is tried as well and the fuller layout taken. Within a row
    samples stand from old to new, and rows are ordered by their oldest sample, which mixes lengths. No rows come out
    when all tokens together do not fill one.
    """
    rows = sum(item.tokens for item in items) // pack_length
    if rows == 0:
        return [], list(items)
    order = [*items[:waited], *sorted(items[waited:], key=lambda item: (-item.tokens, item.number))]
    packs, left = balanced(order, rows, pack_length)
    if fill(packs, pack_length) < GOOD_FILL:
        other = best_fit(order, rows, pack_length)
        if fill(other[0], pack_length) > fill(packs, pack_length):
            packs, left = other
    packs = [sorted(row, key=_age) for row in packs if row]
    return sorted(packs, key=lambda row: row[0].number), sorted(left, key=_age)


def balanced(order: Sequence[Item], rows: int, pack_length: int) -> tuple[list[list[Item]], list[Item]]:
    """Each item, in this order, into the row with room that holds least: tokens plus, in equal parts, media tokens."""
    all_tokens = sum(item.tokens for item in order)
    all_media = sum(item.media_tokens for item in order)
    packs: list[list[Item]] = [[] for _ in range(rows)]
    room = [pack_length] * rows
    ranked = [(0, row) for row in range(rows)]  # (load, row), ascending
    left = []
    for item in order:
        place = next((at for at, (_, row) in enumerate(ranked) if room[row] >= item.tokens), None)
        if place is None:
            left.append(item)
            continue
        load, row = ranked.pop(place)
        packs[row].append(item)
        room[row] -= item.tokens
        # both shares of the whole, over a common denominator
        insort(ranked, (load + item.tokens * max(all_media, 1) + item.media_tokens * all_tokens, row))
    return packs, left


def best_fit(order: Sequence[Item], rows: int, pack_length: int) -> tuple[list[list[Item]], list[Item]]:
    """Each item, in this order, into the row it fills most closely."""
    packs: list[list[Item]] = [[] for _ in range(rows)]
    ranked = [(pack_length, row) for row in range(rows)]  # (room, row), ascending
    left = []
    for item in order:
        place = bisect_left(ranked, (item.tokens, -1))
        if place == len(ranked):
            left.append(item)
            continue
        room, row = ranked.pop(place)
        packs[row].append(item)
        insort(ranked, (room - item.tokens, row))
    return packs, left


def fill(packs: Sequence[Sequence[Item]], pack_length: int) -> float:
    """Share of the rows' places that hold a token."""
    return sum(item.tokens for row in packs for item in row) / (max(len(packs), 1) * pack_length)


def _age(item: Item) -> int:
    return item.number


@dataclass
class PackingStatistics:
    """What was handed out so far, counted over a whole stage."""

    pack_length: int
    packs: int = 0
    samples: int = 0
    tokens: int = 0
    media_tokens: int = 0

    def add(self, row: Sequence[Item]) -> None:
        self.packs += 1
        self.samples += len(row)
        self.tokens += sum(item.tokens for item in row)
        self.media_tokens += sum(item.media_tokens for item in row)

    def report(self, waiting: int) -> dict:
        """{"pack_length", "packs", "samples", "samples_per_pack", "fill" and "media_share" (of the places), "waiting"}.
        """
        places = max(self.packs, 1) * self.pack_length
        return {
            "pack_length": self.pack_length,
            "packs": self.packs,
            "samples": self.samples,
            "samples_per_pack": round(self.samples / max(self.packs, 1), 2),
            "fill": round(self.tokens / places, 4),
            "media_share": round(self.media_tokens / places, 4),
            "waiting": waiting,
        }
