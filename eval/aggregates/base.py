"""What an aggregate is: a function of SUMS of per-sample statistics.

Accuracy is (right, asked), corpus BLEU is n-gram counts and lengths, F1 is true and false positives. A figure stated
that way gets its bootstrap interval for one matrix product, since resampling only changes the weights of the sums.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from eval.registry import Registry
from eval.scoring import final_answer

Row = dict[str, Any]
"""One scored answer as results files hold it: id, task, kind, group, control, output, answers, scores, scoring, …"""


class Aggregate(ABC):
    """Base of all aggregates. `name` is the figure's name in tables, e.g. `anls` or `f1_macro`."""

    name: str
    denominator: int | None = None
    """Of a mean of scores in [0, 1] and of a share: which of its sums it divides by. None: it is something else."""

    def prepared(self, rows: Sequence[Row]) -> Aggregate:
        """Self, or a copy that knows what must be seen in all rows beforehand, such as the set of labels."""
        return self

    @abstractmethod
    def statistics(self, row: Row) -> np.ndarray | None:
        """Statistics (K,) of one sample, K the same for all; None for a sample that does not take part."""

    @abstractmethod
    def combine(self, sums: np.ndarray) -> np.ndarray:
        """Figures (...) from sums (..., K) of statistics; NaN where the figure is not defined."""

    def value(self, rows: Iterable[Row]) -> float | None:
        """The figure over `rows`, without an interval. None over no rows."""
        rows = list(rows)
        aggregate = self.prepared(rows)
        kept = [values for row in rows if (values := aggregate.statistics(row)) is not None]
        figure = float(aggregate.combine(np.sum(kept, axis=0, dtype=np.float64))) if kept else float("nan")
        return None if np.isnan(figure) else figure


aggregates: Registry[type[Aggregate]] = Registry("aggregate")
register_aggregate = aggregates.register


def divide(numerator: np.ndarray, denominator: np.ndarray, empty: float) -> np.ndarray:
    """Element-wise quotient, `empty` where the denominator is zero."""
    quotient = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), empty)
    return np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) != 0)


def score_of(row: Row, metric: str) -> float | None:
    """The row's score under `metric`, None where it was not scored. Raises KeyError naming the scores there are."""
    scores = row.get("scores") or {}
    if metric not in scores:
        raise KeyError(f"sample {row.get('id')!r} has no score {metric!r}; it has: {', '.join(scores) or '(none)'}")
    return None if scores[metric] is None else float(scores[metric])


def output_of(row: Row) -> str:
    """The answer's text, without the model's thinking, as metrics get it.

    Empty for a sample that failed, which therefore counts as wrong and not as missing.
    """
    return "" if row.get("error") or row.get("output") is None else final_answer(str(row["output"]))
