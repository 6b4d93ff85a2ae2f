"""Intervals: how far a figure would move on other samples of the same kind, and whether two runs really differ.

Percentile bootstrap (Efron 1979) over CLUSTERS: questions about one image or video share its difficulty and are drawn
together (cluster bootstrap, Davison & Hinkley 1997, §3.8; Miller 2024, arXiv 2411.00640, for benchmarks), since
drawing them one by one gives intervals that are too narrow. A resample only re-weighs clusters, so all resamples are
one product of draw counts (B, G) and per-cluster sums (G, K), taken in chunks.

Where everything is right, or nothing, every resample is too, and the bootstrap would call 5 of 5 certain. There the
exact binomial interval (Clopper & Pearson 1934, Biometrika 26:404) takes its place: `at_the_bound`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eval.aggregates.base import Aggregate, Row

_CHUNK = 1 << 22  # draws held in memory at once
_NOISE = 1e-12  # equal figures that were summed in another order are ties


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval.

    `low` and `high` are None where resampling says nothing: fewer than 2 clusters, or a figure that all resamples share
    and that is no share or mean at 0 or 1.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Samples that took part."""
    clusters: int
    """Independent groups among them."""
    level: float = 0.95

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class PairedEstimate:
    """The difference B - A over the samples that both runs have, with its interval."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int
    a: float | None
    """A's figure over the shared samples."""
    b: float | None
    below: float | None
    """Share of resamples in which B is worse than A."""
    above: float | None
    """Share in which B is better; what is left to 1 are ties."""
    level: float = 0.95

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def interval(
    aggregate: Aggregate, rows: Sequence[Row], seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> Estimate:
    """The aggregate over `rows` with its percentile interval, clustered by `row["group"]`.

    A row without a group is its own cluster. The result depends on the seed and on the rows, not on their order.
    """
    aggregate = aggregate.prepared(rows)
    kept = [(_cluster(row), values) for row in rows if (values := aggregate.statistics(row)) is not None]
    if not kept:
        return Estimate(None, None, None, 0, 0, level)
    sums = _cluster_sums(kept)
    figures = np.concatenate([aggregate.combine(w @ sums) for w in draw_weights(len(sums), resamples, seed)])
    low, high = _percentiles(figures, level) if len(sums) > 1 else (None, None)
    value = _number(aggregate.combine(sums.sum(0)))
    if aggregate.denominator is not None and value is not None and _at_bound(value):
        low, high = at_the_bound(value, int((sums[:, aggregate.denominator] > 0).sum()), level)
    elif low is not None and np.nanmax(figures) - np.nanmin(figures) <= _NOISE:
        low = high = None
    return Estimate(value, low, high, len(kept), len(sums), level)


def at_the_bound(value: float, clusters: int, level: float = 0.95) -> tuple[float | None, float | None]:
    """Clopper-Pearson interval of a mean that is 1 (or 0) in each of `clusters` independent groups.

    With a = 1 - level it is [(a/2)^(1/n), 1], or its mirror image: the means under which n of n is no rarer than a/2.
    It also holds for partial scores in [0, 1], being conservative there: a score with mean m is 1 with a probability
    of m at most. (None, None) for other values and below 2 clusters.
    """
    if clusters < 2 or not _at_bound(value):
        return None, None
    width = 1 - ((1 - level) / 2) ** (1 / clusters)
    return (1 - width, 1.0) if value > 0.5 else (0.0, width)


def _at_bound(value: float) -> bool:
    return min(abs(value), abs(value - 1)) <= _NOISE


def paired_interval(
    aggregate: Aggregate,
    rows_a: Sequence[Row],
    rows_b: Sequence[Row],
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> PairedEstimate:
    """B - A over the samples that both have (same task, id and control), both resampled by the same draws.

    Between a model that has all right and one that has all wrong the interval is `at_the_bound`, stretched to [-1, 1].
    A sample that either run left unscored is left out of both. Raises ValueError when a run has a sample twice.
    """
    aggregate = aggregate.prepared([*rows_a, *rows_b])
    table_a, table_b = _by_identity(rows_a, "first"), _by_identity(rows_b, "second")
    kept = []
    for key in table_a.keys() & table_b.keys():
        a, b = aggregate.statistics(table_a[key]), aggregate.statistics(table_b[key])
        if a is not None and b is not None:
            cluster = _cluster(table_a[key] if table_a[key].get("group") not in (None, "") else table_b[key])
            kept.append((cluster, np.concatenate([a, b])))
    if not kept:
        return PairedEstimate(None, None, None, 0, 0, None, None, None, None, level)
    sums = _cluster_sums(kept)
    width = sums.shape[1] // 2

    def both(totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return aggregate.combine(totals[..., :width]), aggregate.combine(totals[..., width:])

    a, b = both(sums.sum(0))
    value = _number(b - a)
    if len(sums) < 2:
        return PairedEstimate(value, None, None, len(kept), len(sums), _number(a), _number(b), None, None, level)
    drawn = [both(w @ sums) for w in draw_weights(len(sums), resamples, seed)]
    change = np.concatenate([after - before for before, after in drawn])
    low, high = _percentiles(change, level)
    if aggregate.denominator is not None and abs(abs(value) - 1) <= _NOISE:
        places = aggregate.denominator, aggregate.denominator + width  # one model all right, the other all wrong
        low, high = at_the_bound((value + 1) / 2, int((sums[:, places] > 0).all(1).sum()), level)
        low, high = (None, None) if low is None else (2 * low - 1, 2 * high - 1)
    below, above = float(np.mean(change < -_NOISE)), float(np.mean(change > _NOISE))
    return PairedEstimate(value, low, high, len(kept), len(sums), _number(a), _number(b), below, above, level)


def draw_weights(clusters: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each cluster is drawn in each resample: chunks (b, G) whose lengths sum to `resamples`."""
    generator = np.random.default_rng(seed)
    size = max(1, _CHUNK // clusters)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        draws = generator.integers(clusters, size=(count, clusters)) + clusters * np.arange(count)[:, None]
        yield np.bincount(draws.ravel(), minlength=count * clusters).reshape(count, clusters).astype(np.float64)


def _cluster(row: Row) -> tuple[str, ...]:
    """Key of the row's cluster. Groups and ids of different tasks are different things, whatever they are called."""
    task, group = str(row.get("task", "")), row.get("group")
    if group not in (None, ""):
        return (task, "group", str(group))
    return (task, "sample", *(str(row.get(key, "")) for key in ("id", "control")))


def _cluster_sums(kept: list[tuple[tuple[str, ...], np.ndarray]]) -> np.ndarray:
    """Sums (G, K) of statistics (K,) by cluster key, sorted so that the order of rows cannot be seen in any bit."""
    kept = sorted(((key, np.asarray(values, np.float64)) for key, values in kept), key=lambda x: (x[0], tuple(x[1])))
    sums: dict[tuple, np.ndarray] = {}
    for place, (key, values) in enumerate(kept):
        anonymous = key[1] == "sample" and not key[2]  # neither group nor id: nothing says that two are one
        key = (*key, str(place)) if anonymous else key
        sums[key] = sums[key] + values if key in sums else values
    return np.stack(list(sums.values()))


def _by_identity(rows: Sequence[Row], which: str) -> dict[str, Row]:
    table: dict[str, Row] = {}
    for row in rows:
        key = json.dumps([row.get("task"), row.get("id"), row.get("control")], default=str)
        if key in table:
            raise ValueError(f"the {which} run has sample {row.get('id')!r} twice (task, id, control: {key})")
        table[key] = row
    return table


def _percentiles(figures: np.ndarray, level: float) -> tuple[float | None, float | None]:
    """Both ends of the central `level` share; resamples in which the figure is not defined do not take part."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    figures = figures[~np.isnan(figures)]
    if not len(figures):
        return None, None
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _number(figure: np.ndarray) -> float | None:
    return None if np.isnan(figure) else float(figure)
