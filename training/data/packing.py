"""Which samples share a row: whole samples laid end to end in rows of `pack_length` tokens, chosen from a buffer.

Plain integers in, plain integers out, the same on every machine. A round lays out a whole buffer at once: the number of
rows is what its tokens can fill, samples go longest first into the row that holds least (a balanced knapsack: rows of a
round have about as many tokens, and about as many media tokens), and what fits nowhere waits for the next round, where
it goes first, the oldest before all others. So nothing starves, and a resumed run has little to read again.
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
    # what has media first: what has none evens out the rest
    fresh = sorted(items[waited:], key=lambda item: (not item.media_tokens, -item.tokens, item.number))
    order = [*items[:waited], *fresh]
    packs, left = balanced(order, rows, pack_length)
    if fill(packs, pack_length) < GOOD_FILL:
        longest_first = sorted(items[waited:], key=lambda item: (-item.tokens, item.number))
        other = best_fit([*items[:waited], *longest_first], rows, pack_length)
        if fill(other[0], pack_length) > fill(packs, pack_length):
            packs, left = other
    packs = [sorted(row, key=_age) for row in packs if row]
    return sorted(packs, key=lambda row: row[0].number), sorted(left, key=_age)


def balanced(order: Sequence[Item], rows: int, pack_length: int) -> tuple[list[list[Item]], list[Item]]:
    """Each item, in this order, into the row with room that holds least: least media tokens for one with media, least
    tokens for one without."""
    packs: list[list[Item]] = [[] for _ in range(rows)]
    media, tokens = [0] * rows, [0] * rows
    by_media = [(0, 0, row) for row in range(rows)]  # (media tokens, tokens, row), ascending
    by_tokens = [(0, row) for row in range(rows)]
    left = []
    for item in order:
        ranked = by_media if item.media_tokens else by_tokens
        row = next((entry[-1] for entry in ranked if tokens[entry[-1]] + item.tokens <= pack_length), None)
        if row is None:
            left.append(item)
            continue
        packs[row].append(item)
        del by_media[bisect_left(by_media, (media[row], tokens[row], row))]
        del by_tokens[bisect_left(by_tokens, (tokens[row], row))]
        media[row] += item.media_tokens
        tokens[row] += item.tokens
        insort(by_media, (media[row], tokens[row], row))
        insort(by_tokens, (tokens[row], row))
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
