"""MMLongBench-Doc's F1 (Ma et al., NeurIPS 2024): a model must answer what can be answered and refuse the rest.

As in lmms-eval's `mmlongbench_doc_aggregate_f1`. The authors' script sums precision's numerator over gold-answerable
samples instead; the two agree whenever an answer to an unanswerable question scores zero.
"""

from __future__ import annotations

import numpy as np

from eval.aggregates.base import Aggregate, Row, divide, output_of, register_aggregate, score_of
from eval.metrics.mmlongbench_doc import is_answerable


@register_aggregate("answerable_f1")
class AnswerableF1(Aggregate):
    """Harmonic mean of recall = Σ score over gold-answerable / their number, precision = the same over replies that
    claim an answer. 0.0 where either has no sample. A failed sample claims an (empty, wrong) answer."""

    def __init__(self, metric: str = "mmlongbench_doc", name: str = "answerable_f1") -> None:
        self.metric = metric
        self.name = name

    def statistics(self, row: Row) -> np.ndarray | None:
        score = score_of(row, self.metric)
        if score is None:
            return None
        wanted = any(is_answerable(str(answer)) for answer in row.get("answers") or [""])
        claimed = is_answerable(output_of(row))
        return np.array([score * wanted, wanted, score * claimed, claimed], dtype=np.float64)

    def combine(self, sums: np.ndarray) -> np.ndarray:
        recall = divide(sums[..., 0], sums[..., 1], 0.0)
        precision = divide(sums[..., 2], sums[..., 3], 0.0)
        return divide(2 * recall * precision, recall + precision, 0.0)
