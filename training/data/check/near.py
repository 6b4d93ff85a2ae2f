"""Pairs of fingerprints that differ in few bits, among millions.

Multi-index hashing (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with multi-index hashing") in its
simplest form: the bits are cut into distance + 1 bands; two fingerprints within the distance agree in one band at
least, so only those that share a band are compared.
"""

from collections.abc import Iterator

import numpy as np

from training.data.check.fingerprint import BITS

CHUNK = 1 << 20  # candidate pairs compared at once
ROWS = 1 << 16  # fingerprints cut into bands at once
ORDER = np.random.default_rng(0).permutation(BITS)  # neighbouring frequencies go together; bands should not


def near_pairs(a: np.ndarray, b: np.ndarray, distance: int) -> np.ndarray:
    """All pairs within `distance` bits.

    Args:
        a, b: (N, 32) and (M, 32) uint8 fingerprints.
        distance: 0 ... 63 bits.

    Returns:
        (P, 3) int64 rows (index in a, index in b, bits that differ), sorted. Memory: O(N + M + P).
    """
    if not 0 <= distance < BITS // 4:
        raise ValueError(f"distance = {distance} is not in 0 ... {BITS // 4 - 1}")
    a_words, b_words = (np.ascontiguousarray(x).view(np.uint64) for x in (a, b))
    a_keys, b_keys = _bands(a, distance + 1), _bands(b, distance + 1)
    found = [np.empty((0, 3), dtype=np.int64)]
    for band in range(distance + 1):
        order = np.argsort(a_keys[band], kind="stable")
        keys = a_keys[band][order]
        first = np.searchsorted(keys, b_keys[band], "left")
        counts = np.searchsorted(keys, b_keys[band], "right") - first
        for rows in _chunks(counts):
            right = np.repeat(rows, counts[rows])
            within = np.arange(len(right)) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
            left = order[np.repeat(first[rows], counts[rows]) + within]
            bits = np.bitwise_count(a_words[left] ^ b_words[right]).sum(axis=1, dtype=np.int64)
            near = bits <= distance
            found.append(np.stack([left[near], right[near], bits[near]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def near_pairs_slow(a: np.ndarray, b: np.ndarray, distance: int) -> np.ndarray:
    """The twin of `near_pairs` that compares everything with everything."""
    rows = []
    for i in range(len(a)):
        for j in range(len(b)):
            if (bits := int(np.unpackbits(a[i] ^ b[j]).sum())) <= distance:
                rows.append((i, j, bits))
    return np.array(sorted(rows), dtype=np.int64).reshape(-1, 3)


def _bands(fingerprints: np.ndarray, count: int) -> list[np.ndarray]:
    """`count` integer keys (N,) of each fingerprint: the bits in a fixed random order, dealt out evenly.

    Of a band wider than 64 bits the first 64 do: whoever agrees in the band agrees in them.
    """
    edges = np.linspace(0, BITS, count + 1).astype(int)
    keys = [np.zeros((len(fingerprints), 8), np.uint8) for _ in range(count)]
    for start in range(0, len(fingerprints), ROWS):
        bits = np.unpackbits(fingerprints[start : start + ROWS], axis=1)[:, ORDER]
        for key, low, high in zip(keys, edges, edges[1:]):
            packed = np.packbits(bits[:, low : min(high, low + 64)], axis=1)
            key[start : start + ROWS, : packed.shape[1]] = packed
    return [key.view(np.uint64).ravel() for key in keys]


def _chunks(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of non-zero `counts`, in runs whose counts add up to about CHUNK."""
    rows = np.flatnonzero(counts)
    pieces = np.cumsum(counts[rows]) // CHUNK
    yield from np.split(rows, np.flatnonzero(np.diff(pieces)) + 1) if len(rows) else ()
