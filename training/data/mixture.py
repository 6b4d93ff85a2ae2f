"""Several sources as one training set: how often each is seen, and in which order, fixed by the seed alone.

A mixture is a static, map-style concatenation; `order(epoch)` says which samples an epoch visits. The order belongs to
the sampler, not to `__getitem__`, so worker processes and caches never hold a stale epoch, and resuming needs nothing
but (epoch, batch).

Each source is an endless sequence of its own shuffled passes, and every epoch takes the next stretch of it. So a source
with weight 0.3 shows all of its samples equally often over the epochs (counts differ by one at most), instead of the
same 30 % for ever.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.data.sample import Sample
from training.data.sources import DataError, Source, open_source, under_root


class Mixture(Sequence):
    """Sequence of Samples over all sources, with `order(epoch)` giving the visiting order.

    sources: specs as `open_source` takes them (or Source objects), each with at most one of
      - repeats (default 1.0): passes over the source an epoch; fractions are fine
      - weight: share of the epoch, relative to the other weights (all sources must have one, or none)
      and optionally limit: only the first N records are used; cap: at most N samples an epoch, other ones in the next
      epochs until all were seen (the epoch gets shorter, the other sources keep their numbers).
    epoch_size: samples an epoch; default: all samples once (weights), or the sum of the repeats.
    replay: more specs, with weights or repeats among themselves and without caps. The others keep their numbers; so
      many of these come on top that they make `replay_share` of an epoch.
    root: the folder that relative paths start from.
    """

    def __init__(
        self,
        sources: Sequence[str | Path | dict[str, Any] | Source],
        seed: int = 0,
        root: str | Path | None = None,
        epoch_size: int | None = None,
        replay: Sequence[str | Path | dict[str, Any] | Source] = (),
        replay_share: float = 0.0,
    ):
        if not sources:
            raise DataError("data.sources is empty")
        self.seed = seed
        self.sources: list[Source] = []
        self.sizes: list[int] = []
        repeats, weights, caps = [], [], []
        for spec in (*sources, *replay):
            options = {} if isinstance(spec, Source) else under_root(spec, root)
            source = spec if isinstance(spec, Source) else open_source(options)
            self.sources.append(source)
            limit = options.get("limit")
            self.sizes.append(len(source) if limit is None else min(int(limit), len(source)))
            repeats.append(options.get("repeats"))
            weights.append(options.get("weight"))
            caps.append(options.get("cap"))
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes)])
        for source, cap in zip(self.sources, caps):
            if cap is not None and not (isinstance(cap, int) and cap > 0):
                raise DataError(f"{source.path}: cap must be a whole number above 0, this is {cap!r}")
        main = len(sources)
        counts = self._counts(slice(main), repeats, weights, epoch_size)
        self.counts = [count if cap is None else min(count, cap) for count, cap in zip(counts, caps)]
        if replay:
            again = max(round(sum(self.counts) * replay_share / (1 - replay_share)), 1)
            self.counts += self._counts(slice(main, None), repeats, weights, again)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def __getitem__(self, index: int) -> Sample:
        """The sample at a static index; raises SampleError when the record is bad."""
        source, row = self.locate(index)
        return self.sources[source][row]

    def outlines(self) -> Iterator[Sample | None]:
        """All samples in static order as far as their lengths can be guessed from, see `Source.outlines`."""
        for source, size in zip(self.sources, self.sizes):
            yield from source.outlines(size)

    def locate(self, index: int) -> tuple[int, int]:
        """Static index -> (number of the source, row in it)."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        source = bisect_right(self.offsets, index) - 1
        return source, int(index - self.offsets[source])

    def where(self, index: int) -> str:
        source, row = self.locate(index)
        return self.sources[source].where(row)

    def order(self, epoch: int) -> np.ndarray:
        """Static indices in the order in which `epoch` visits them, shape (sum(counts),), the same in every process."""
        parts = [self._stretch(source, epoch) for source in range(len(self.sources))]
        joined = np.concatenate(parts)
        return np.random.default_rng([self.seed, 1, epoch]).permutation(joined)

    def _stretch(self, source: int, epoch: int) -> np.ndarray:
        """This epoch's stretch of the endless sequence of shuffled passes over one source."""
        size, count = self.sizes[source], self.counts[source]
        start, stop = epoch * count, (epoch + 1) * count
        rows = []
        for turn in range(start // size, -(-stop // size)):
            shuffled = np.random.default_rng([self.seed, 2, source, turn]).permutation(size)
            rows.append(shuffled[max(start - turn * size, 0) : stop - turn * size])
        return np.concatenate(rows or [np.empty(0, dtype=np.int64)]) + self.offsets[source]

    def _counts(self, part: slice, repeats: list, weights: list, epoch_size: int | None) -> list[int]:
        """How many samples of each source of a part of them an epoch holds."""
        sources, sizes, repeats, weights = self.sources[part], self.sizes[part], repeats[part], weights[part]
        for source, repeat, weight, size in zip(sources, repeats, weights, sizes):
            if repeat is not None and weight is not None:
                raise DataError(f"{source.path}: 'repeats' and 'weight' are both set; keep one")
            for name, value in (("repeats", repeat), ("weight", weight)):
                if value is not None and not (isinstance(value, (int, float)) and 0 <= value < float("inf")):
                    raise DataError(f"{source.path}: {name} must be a number of at least 0, this is {value!r}")
            if size <= 0:
                raise DataError(f"{source.path}: limit leaves no records")
        if any(weight is not None for weight in weights):
            if None in weights:
                missing = sources[weights.index(None)].path
                raise DataError(
                    f"{missing} has no 'weight' but others have: give every source one, or use 'repeats' everywhere"
                )
            wanted = np.array(weights, dtype=np.float64)
            total = epoch_size or sum(size for size, weight in zip(sizes, weights) if weight > 0)
        else:
            wanted = np.array([size * (1 if repeat is None else repeat) for size, repeat in zip(sizes, repeats)])
            total = epoch_size or int(wanted.sum().round())
        if wanted.sum() <= 0 or total <= 0:
            raise DataError("the mixture is empty: every weight or repeat is 0")
        return largest_remainder(wanted, total)


def largest_remainder(wanted: np.ndarray, total: int) -> list[int]:
    """Whole numbers in the proportions of `wanted` (S,) that sum to exactly `total` (Hamilton's method; ties: first
    wins).
    """
    exact = wanted * (total / wanted.sum())
    counts = np.floor(exact + 1e-9).astype(np.int64)
    for source in np.argsort(counts - exact, kind="stable")[: total - counts.sum()]:
        counts[source] += 1
    return counts.tolist()
