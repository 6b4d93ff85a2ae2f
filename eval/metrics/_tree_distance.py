"""Distances that TEDS is made of: edit distance of ordered trees, and of all pairs of cell contents at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def tree_distance(leftmost_a: Sequence[int], leftmost_b: Sequence[int], rename: np.ndarray) -> float:
    """Edit distance of two ordered trees (Zhang & Shasha, SIAM J. Comput. 1989); inserting and deleting cost 1.

    Trees are given by the place of the leftmost leaf of every node in post-order, `rename` (N_a, N_b) by the same
    places, costs at most 1. Takes `steps(a) * steps(b)` steps: a small multiple of N_a·N_b, since tables are shallow.
    """
    costs: list[list[float]] = rename.tolist()
    distance = _leaf_distances(leftmost_a, leftmost_b, rename).tolist()
    roots_b = _keyroots(leftmost_b)
    for root_a in _keyroots(leftmost_a):
        for root_b in roots_b:
            _forest_distance(root_a, root_b, leftmost_a, leftmost_b, costs, distance)
    return distance[-1][-1]


def _forest_distance(
    root_a: int,
    root_b: int,
    leftmost_a: Sequence[int],
    leftmost_b: Sequence[int],
    costs: list[list[float]],
    distance: list[list[float]],
) -> None:
    """Fills `distance` for all pairs of subtrees on the left paths of the two roots."""
    first_a, first_b = leftmost_a[root_a], leftmost_b[root_b]
    columns = [(b, leftmost_b[b] - first_b) for b in range(first_b, root_b + 1)]
    forests = [[float(j) for j in range(len(columns) + 1)]]  # row i, column j: first i against first j nodes
    for i, a in enumerate(range(first_a, root_a + 1), 1):
        above, costs_a, distance_a = forests[-1], costs[a], distance[a]
        before = forests[leftmost_a[a] - first_a]  # the forest left of a's subtree
        left = float(i)
        row = [left]
        for j, (b, skip) in enumerate(columns, 1):
            best = above[j] if above[j] < left else left
            best += 1.0
            if leftmost_a[a] == first_a and not skip:
                whole = above[j - 1] + costs_a[b]
                left = whole if whole < best else best
                distance_a[b] = left
            else:
                whole = before[skip] + distance_a[b]
                left = whole if whole < best else best
            row.append(left)
        forests.append(row)


def steps(leftmost: Sequence[int]) -> int:
    """A tree's factor in the time of `tree_distance`."""
    return sum(root - leftmost[root] + 1 for root in _keyroots(leftmost))


def _keyroots(leftmost: Sequence[int]) -> list[int]:
    """The last node of every left path (those with a left sibling, and the root), less the leaves; the root stays."""
    last = {first: node for node, first in enumerate(leftmost)}
    return sorted(node for first, node in last.items() if first < node or node == len(leftmost) - 1)


def _leaf_distances(leftmost_a: Sequence[int], leftmost_b: Sequence[int], rename: np.ndarray) -> np.ndarray:
    """Distances (N_a, N_b) where either subtree is a leaf: it becomes the likest node, all others are inserted."""
    leaves_a, leaves_b = (
        [n for n, first in enumerate(leftmost) if n == first] for leftmost in (leftmost_a, leftmost_b)
    )
    distance = np.zeros_like(rename)
    for b, first in enumerate(leftmost_b):
        distance[leaves_a, b] = b - first + rename[leaves_a, first : b + 1].min(axis=1)
    for a, first in enumerate(leftmost_a):
        distance[a, leaves_b] = a - first + rename[first : a + 1, leaves_b].min(axis=0)
    return distance


def cell_distances(a: Sequence[tuple[str, ...]], b: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Levenshtein distances over the longer length, (N_a, N_b); 0 between two empty contents.

    Every content of `a` is compared with all different contents of `b`, laid end to end, in one sweep over its symbols:
    a row's insertions are a running minimum, which the steps between contents keep apart.
    """
    unique_a, unique_b = list(dict.fromkeys(a)), list(dict.fromkeys(b))
    codes = {symbol: code for code, symbol in enumerate(dict.fromkeys(s for text in (*a, *b) for s in text))}
    lengths = np.array([len(text) for text in unique_b])
    starts = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]]).astype(int)
    ends = starts + lengths
    symbols = np.full(int(lengths.sum()) + len(unique_b), -1)  # -1 stands before each content: its empty prefix
    for start, text in zip(starts, unique_b):
        symbols[start + 1 : start + 1 + len(text)] = [codes[symbol] for symbol in text]
    within = np.arange(len(symbols)) - np.repeat(starts, lengths + 1)
    step = int(lengths.max()) + max(map(len, unique_a)) + 2  # larger than any distance
    slope = within + step * np.repeat(np.arange(len(unique_b)), lengths + 1)
    table = np.empty((len(unique_a), len(unique_b)))
    for place, text in enumerate(unique_a):
        row = within.copy()
        for count, symbol in enumerate(text, 1):
            best = np.minimum(row[1:] + 1, row[:-1] + (symbols[1:] != codes[symbol]))
            row[1:] = best
            row[starts] = count
            row = np.minimum.accumulate(row - slope) + slope
        table[place] = row[ends] / np.maximum(np.maximum(lengths, len(text)), 1)
    places_a, places_b = ({text: i for i, text in enumerate(unique)} for unique in (unique_a, unique_b))
    return table[np.ix_([places_a[text] for text in a], [places_b[text] for text in b])]
