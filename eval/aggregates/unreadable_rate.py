"""The share of multiple-choice answers in which no option could be read: what an accuracy must be read with.

Such answers count as wrong, so a model that knows the answer but does not say its letter shows here.
"""

from __future__ import annotations

import numpy as np

from eval.aggregates.base import Aggregate, Row, divide, output_of, register_aggregate
from eval.metrics.mcq_option_extraction import extraction_failed


@register_aggregate("unreadable_rate")
class UnreadableRate(Aggregate):
    """Answers without a readable option / answers to multiple-choice questions (rows whose `scoring` has `options`).

    A failed sample has no answer and counts as unreadable; so does a letter that is none of the options'.
    """

    denominator = 1

    def __init__(self, extractor: str = "radio_vlm", name: str = "unreadable_rate") -> None:
        self.extractor = extractor
        self.name = name

    def statistics(self, row: Row) -> np.ndarray | None:
        scoring = row.get("scoring") or {}
        if not scoring.get("options"):
            return None
        failed = extraction_failed(output_of(row), scoring["options"], scoring.get("choices"), self.extractor)
        return np.array([failed, 1.0])

    def combine(self, sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 0], sums[..., 1], np.nan)
