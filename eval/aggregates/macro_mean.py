"""The mean over kinds of the mean within a kind, so that a frequent kind cannot drown rare ones (MLVU's M-Avg)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.aggregates.base import Aggregate, Row, divide, register_aggregate, score_of


@register_aggregate("macro_mean")
class MacroMean(Aggregate):
    """Unweighted mean of the per-class means of `metric`, classes being the values of `row[by]`.

    `classes` is found in the rows unless given. A class without a scored sample (in a resample, too) is left out of
    the outer mean, as every harness does; rows without a class form one of their own.
    """

    def __init__(
        self, metric: str, by: str = "kind", classes: Sequence[object] | None = None, name: str | None = None
    ) -> None:
        self.metric = metric
        self.by = by
        self.name = name or f"{metric}_macro"
        self._places = None if classes is None else {value: place for place, value in enumerate(classes)}

    def prepared(self, rows: Sequence[Row]) -> MacroMean:
        if self._places is not None:
            return self
        classes = sorted({row.get(self.by) for row in rows}, key=lambda value: (value is None, str(value)))
        return MacroMean(self.metric, self.by, classes, self.name)

    def statistics(self, row: Row) -> np.ndarray | None:
        score = score_of(row, self.metric)
        if self._places is None:
            raise ValueError(f"{self.name}: classes are unknown; call prepared(rows) first or give `classes`")
        if score is None or row.get(self.by) not in self._places:
            return None
        sums = np.zeros((len(self._places), 2))
        sums[self._places[row.get(self.by)]] = score, 1.0
        return sums.ravel()

    def combine(self, sums: np.ndarray) -> np.ndarray:
        totals, counts = sums[..., 0::2], sums[..., 1::2]
        return divide(divide(totals, counts, 0.0).sum(-1), (counts > 0).sum(-1), np.nan)
