"""What is there twice: pictures that look the same, conversations that are the same, and what training and the held-out
sources share.

A held-out sample whose picture the model was trained on measures memory. Pictures are compared as files: a file that
ten questions use counts once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from training.data.check.fingerprint import DISTANCE
from training.data.check.near import near_pairs
from training.data.check.tally import BYTES, Tally

SHOWN = 24  # pairs of pictures kept for the report


@dataclass(frozen=True)
class Place:
    """A record, and which of its media. `source`: number of the tally."""

    source: int
    row: int
    number: int = 0


@dataclass(frozen=True)
class Pair:
    """`other` looks like, or is, `first`; `bits`: how many of 256 differ; 0 also for the same file.

    `words`: the whole conversations are the same, not only a picture.
    """

    first: Place
    other: Place
    bits: int
    words: bool = False


@dataclass
class Repeats:
    """What was found.

    Attributes:
        pictures: Different picture files that were compared by their looks; 0 when that was not asked for.
        blank: Files without a fingerprint (blank pages).
        groups, grouped: Groups of training files that look the same, and files in them.
        pairs: Examples of them.
        conversations: Training records that repeat an earlier one word for word, with the same media.
        conversation_pairs: Examples of them.
        overlap: Held-out record -> the training picture or conversation it shares.
    """

    distance: int = DISTANCE
    pictures: int = 0
    blank: int = 0
    groups: int = 0
    grouped: int = 0
    pairs: list[Pair] = field(default_factory=list)
    conversations: int = 0
    conversation_pairs: list[Pair] = field(default_factory=list)
    overlap: dict[tuple[int, int], Pair] = field(default_factory=dict)


def find_repeats(
    tallies: Sequence[Tally],
    is_heldout: Sequence[bool],
    looks: bool = False,
    distance: int = DISTANCE,
    origins: Sequence[str] | None = None,
) -> Repeats:
    """Compares all records of the tallies.

    Args:
        looks: Also by fingerprints, within `distance` bits.
        origins: What each tally was read from; a training source that two stages read does not repeat itself.
    """
    found = Repeats(distance)
    training = [number for number, heldout in enumerate(is_heldout) if not heldout]
    heldout = [number for number, held in enumerate(is_heldout) if held]
    longest: dict[str | int, int] = {}
    for number in sorted(training, key=lambda number: len(tallies[number])):
        longest[number if origins is None else origins[number]] = number
    _conversations(tallies, sorted(longest.values()), found)
    _shared_conversations(tallies, training, heldout, found)
    ours, theirs = _Files(tallies, training), _Files(tallies, heldout)
    for mine, other in zip(*_same(ours.keys, theirs.keys)):
        _overlaps(found, ours.place(mine), theirs, other, 0)
    if looks:
        found.pictures = len(ours.keys) + len(theirs.keys)
        found.blank = int((~ours.marked).sum() + (~theirs.marked).sum())
        _group(ours, found)
        for a, b, bits in near_pairs(ours.unique, theirs.unique, distance).tolist():
            for other in theirs.files_of(b):
                _overlaps(found, ours.place(ours.files_of(a)[0]), theirs, other, bits)
    return found


class _Files:
    """The different picture files of some tallies, and the different fingerprints among them."""

    def __init__(self, tallies: Sequence[Tally], numbers: list[int]) -> None:
        def joined(name: str, dtype: type) -> np.ndarray:
            parts = [np.asarray(getattr(tallies[number], name), dtype) for number in numbers]
            return np.concatenate(parts) if parts else np.empty(0, dtype)

        self.all_keys = joined("picture_keys", np.uint64)
        self.rows, self.numbers = joined("picture_rows", np.int64), joined("picture_numbers", np.int64)
        sizes = [len(tallies[number].picture_keys) for number in numbers]
        self.sources = np.repeat(np.array(numbers, np.int64), sizes)
        prints = [tallies[number].fingerprint_rows() for number in numbers]
        prints = np.concatenate(prints) if prints else np.empty((0, BYTES), np.uint8)
        self.keys, self.first = np.unique(self.all_keys, return_index=True)  # a file a row from here on
        self.order = np.argsort(self.all_keys, kind="stable")
        prints = prints[self.first]
        self.marked = prints.any(axis=1)
        self.with_print = np.flatnonzero(self.marked)
        self.unique, self.of_file = _unique_rows(prints[self.marked])
        self._by_print = np.argsort(self.of_file, kind="stable")
        self._starts = np.searchsorted(self.of_file[self._by_print], np.arange(len(self.unique) + 1))

    def place(self, file: int) -> Place:
        at = self.first[file]
        return Place(int(self.sources[at]), int(self.rows[at]), int(self.numbers[at]))

    def places(self, file: int) -> list[Place]:
        """Every use of a file."""
        low, high = np.searchsorted(self.all_keys[self.order], [self.keys[file], self.keys[file] + np.uint64(1)])
        uses = self.order[low:high]
        return [Place(int(self.sources[u]), int(self.rows[u]), int(self.numbers[u])) for u in uses]

    def files_of(self, fingerprint: int) -> np.ndarray:
        """Files with one of the unique fingerprints, in the order of their keys."""
        return self.with_print[self._by_print[self._starts[fingerprint] : self._starts[fingerprint + 1]]]


def _unique_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 32) -> unique rows and, for each row, its number among them."""
    return np.unique(rows, axis=0, return_inverse=True) if len(rows) else (rows, np.empty(0, np.int64))


def _same(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of equal values of two sorted arrays without repeats."""
    _, mine, other = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
    return mine, other


def _overlaps(found: Repeats, mine: Place, theirs: _Files, file: int, bits: int) -> None:
    for place in theirs.places(file):
        key = (place.source, place.row)
        if key not in found.overlap or found.overlap[key].bits > bits:
            found.overlap[key] = Pair(mine, place, bits)


def _group(files: _Files, found: Repeats) -> None:
    """Groups of files that look the same, directly or through others."""
    pairs = near_pairs(files.unique, files.unique, found.distance)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    root = np.arange(len(files.unique))

    def find(node: int) -> int:
        while root[node] != node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    for a, b, _ in pairs.tolist():
        root[find(a)] = find(b)
    roots = np.array([find(node) for node in range(len(root))], dtype=np.int64)
    sizes = np.bincount(roots[files.of_file], minlength=len(root)) if len(root) else np.empty(0, int)
    found.groups, found.grouped = int((sizes > 1).sum()), int(sizes[sizes > 1].sum())
    repeated = np.flatnonzero(np.bincount(files.of_file, minlength=len(root)) > 1) if len(root) else []
    for node in repeated[:SHOWN]:
        first, other = files.files_of(node)[:2]
        found.pairs.append(Pair(files.place(first), files.place(other), 0))
    for a, b, bits in pairs[np.argsort(pairs[:, 2], kind="stable")][: SHOWN - len(found.pairs)].tolist():
        found.pairs.append(Pair(files.place(files.files_of(a)[0]), files.place(files.files_of(b)[0]), bits))


def _contents(tallies: Sequence[Tally], numbers: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(content keys, source numbers, rows) of all records that could be read."""
    keys = [np.asarray(tallies[number].content_keys, np.uint64) for number in numbers]
    rows = [np.arange(len(part)) for part in keys]
    sources = [np.full(len(part), number) for number, part in zip(numbers, keys)]
    joined = [np.concatenate(parts) if parts else np.empty(0, np.int64) for parts in (keys, sources, rows)]
    read = joined[0] != 0
    return joined[0][read], joined[1][read], joined[2][read]


def _conversations(tallies: Sequence[Tally], training: list[int], found: Repeats) -> None:
    keys, sources, rows = _contents(tallies, training)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse] != np.arange(len(keys))) if len(keys) else []
    found.conversations = len(again)
    for at in again[:SHOWN]:
        one = first[inverse[at]]
        places = (Place(int(sources[one]), int(rows[one])), Place(int(sources[at]), int(rows[at])))
        found.conversation_pairs.append(Pair(*places, 0, words=True))


def _shared_conversations(tallies: Sequence[Tally], training: list[int], heldout: list[int], found: Repeats) -> None:
    keys, sources, rows = _contents(tallies, training)
    unique, first = np.unique(keys, return_index=True)
    for key, source, row in zip(*_contents(tallies, heldout)):
        at = np.searchsorted(unique, key)
        if at < len(unique) and unique[at] == key:
            mine = Place(int(sources[first[at]]), int(rows[first[at]]))
            found.overlap[int(source), int(row)] = Pair(mine, Place(int(source), int(row)), 0, words=True)
