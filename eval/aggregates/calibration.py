"""Do probabilities of yes mean what they say? Expected calibration error, Brier score and AUROC of `row["p_yes"]`.

A row takes part if it holds `p_yes`, the model's P(yes) (`eval.backends.yes_no`), and `gold_yes`. All are sums of
per-sample statistics, so they get the bootstrap interval of every other figure:

| figure | definition |
|---|---|
| `ece` | sum over bins of n/N · abs(mean P(yes) - share of yes); 10 bins of equal width (Naeini et al., AAAI 2015) |
| `ece_adaptive` | the same over 10 bins of equally many samples (Nguyen & O'Connor, EMNLP 2015) |
| `brier` | mean of (P(yes) - y)² (Brier 1950) |
| `auroc` | probability that a yes question gets a higher P(yes) than a no question, ties counting one half |

Calibration is that of the event "yes" (a reliability diagram from 0 to 1), not of the more probable answer. AUROC is no
sum, but pairs are counted from two histograms: of P(yes) where the answer is yes, and where it is no. Each value is a
cell of its own up to `CELLS` distinct values, which is exact; beyond that cells are quantiles, and a pair within one
cell counts one half. Edges and cells are set once by all samples and stay as they are in every resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from eval.aggregates.base import Aggregate, Row, divide, register_aggregate

BINS = 10
CELLS = 512


def weighed(row: Row) -> tuple[float, bool] | None:
    """(P(yes), whether yes is right) of a row; None where it was not weighed."""
    return None if row.get("p_yes") is None else (float(row["p_yes"]), bool(row["gold_yes"]))


@register_aggregate("brier")
class Brier(Aggregate):
    """Mean squared difference of P(yes) and the truth (1 yes, 0 no): 0 is best, 0.25 is a coin's."""

    name = "brier"
    denominator = 1

    def statistics(self, row: Row) -> np.ndarray | None:
        pair = weighed(row)
        return None if pair is None else np.array([(pair[0] - pair[1]) ** 2, 1.0])

    def combine(self, sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 0], sums[..., 1], np.nan)


@register_aggregate("ece")
class ExpectedCalibrationError(Aggregate):
    """Mean distance of P(yes) and the share of yes, by bins of equal width; 0 is best."""

    name = "ece"

    def __init__(self, bins: int = BINS) -> None:
        self.edges = np.linspace(0, 1, bins + 1)[1:-1]  # (bins - 1,) inner edges; a bin holds its lower one

    def place(self, p_yes: float) -> int:
        return int(np.searchsorted(self.edges, p_yes, side="right"))

    def statistics(self, row: Row) -> np.ndarray | None:
        """(samples, sum of P(yes), yes) of every bin."""
        pair = weighed(row)
        if pair is None:
            return None
        sums = np.zeros((len(self.edges) + 1, 3))
        sums[self.place(pair[0])] = 1.0, *pair
        return sums.ravel()

    def combine(self, sums: np.ndarray) -> np.ndarray:
        bins = sums.reshape(*sums.shape[:-1], -1, 3)
        return divide(np.abs(bins[..., 1] - bins[..., 2]).sum(-1), bins[..., 0].sum(-1), np.nan)


@register_aggregate("ece_adaptive")
class AdaptiveCalibrationError(ExpectedCalibrationError):
    """Mean distance of P(yes) and the share of yes, by bins of equally many samples; 0 is best."""

    name = "ece_adaptive"

    def __init__(self, bins: int = BINS) -> None:
        super().__init__(bins)
        self.bins = bins

    def prepared(self, rows: Sequence[Row]) -> AdaptiveCalibrationError:
        return _with_edges(self, _quantiles(_values(rows), self.bins))


@register_aggregate("auroc")
class Auroc(Aggregate):
    """Share of (yes, no) pairs of questions in which yes got the higher P(yes), ties one half; 0.5 is chance."""

    name = "auroc"

    def __init__(self, cells: int = CELLS) -> None:
        self.cells = cells
        self.edges = np.linspace(0, 1, cells + 1)[1:-1]

    def prepared(self, rows: Sequence[Row]) -> Auroc:
        values = _values(rows)
        distinct = np.unique(values)
        exact = len(distinct) <= self.cells
        return _with_edges(self, distinct[1:] if exact else _quantiles(values, self.cells))

    def statistics(self, row: Row) -> np.ndarray | None:
        """Histograms of P(yes) where the answer is yes, and where it is no."""
        pair = weighed(row)
        if pair is None:
            return None
        counts = np.zeros((2, len(self.edges) + 1))
        counts[0 if pair[1] else 1, np.searchsorted(self.edges, pair[0], side="right")] = 1.0
        return counts.ravel()

    def combine(self, sums: np.ndarray) -> np.ndarray:
        counts = sums.reshape(*sums.shape[:-1], 2, -1)
        yes, no = counts[..., 0, :], counts[..., 1, :]
        below = np.cumsum(no, axis=-1) - no / 2
        return divide((yes * below).sum(-1), yes.sum(-1) * no.sum(-1), np.nan)


FIGURES = (ExpectedCalibrationError, AdaptiveCalibrationError, Brier, Auroc)


def reliability(rows: Sequence[Row], bins: int = BINS) -> dict[str, Any]:
    """What a reliability diagram is drawn from: bins of equal width, empty ones too.

    `{"n", "bins": [{"low", "high", "count", "mean_p", "share_yes"}, …], "mass": mean p(yes) + p(no)}`; mean and share
    are None in an empty bin.
    """
    aggregate = ExpectedCalibrationError(bins)
    kept = [values for row in rows if (values := aggregate.statistics(row)) is not None]
    sums = np.sum(kept, axis=0).reshape(-1, 3) if kept else np.zeros((bins, 3))
    edges = [0.0, *aggregate.edges.tolist(), 1.0]
    masses = [row["yes_no_mass"] for row in rows if weighed(row) is not None and row.get("yes_no_mass") is not None]
    return {
        "n": len(kept),
        "bins": [
            {
                "low": round(low, 4), "high": round(high, 4), "count": int(count),
                "mean_p": round(float(p / count), 4) if count else None,
                "share_yes": round(float(yes / count), 4) if count else None,
            }
            for low, high, (count, p, yes) in zip(edges, edges[1:], sums)
        ],
        "mass": round(float(np.mean(masses)), 6) if masses else None,
    }  # fmt: skip


def _values(rows: Sequence[Row]) -> np.ndarray:
    return np.array([pair[0] for row in rows if (pair := weighed(row)) is not None])


def _quantiles(values: np.ndarray, parts: int) -> np.ndarray:
    """Inner edges of `parts` parts of equally many values; fewer where values repeat."""
    return np.unique(np.quantile(values, np.arange(1, parts) / parts)) if len(values) else np.zeros(0)


def _with_edges(aggregate: Any, edges: np.ndarray) -> Any:
    prepared = copy(aggregate)
    prepared.edges = edges
    return prepared
