"""The mean of one metric over samples: the figure most benchmarks report (accuracy, ANLS, token recall, ...)."""

from __future__ import annotations

import numpy as np

from eval.aggregates.base import Aggregate, Row, divide, register_aggregate, score_of


@register_aggregate("mean")
class Mean(Aggregate):
    """Mean of `row["scores"][metric]`. A score of None (nothing could judge the sample) is in neither sum."""

    denominator = 1

    def __init__(self, metric: str, name: str | None = None) -> None:
        self.metric = metric
        self.name = name or metric

    def statistics(self, row: Row) -> np.ndarray | None:
        score = score_of(row, self.metric)
        return None if score is None else np.array([score, 1.0])

    def combine(self, sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 0], sums[..., 1], np.nan)
