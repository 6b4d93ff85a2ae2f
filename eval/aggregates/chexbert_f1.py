"""CheXbert F1 over a corpus of reports: what papers on report generation print, with an interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.aggregates.base import Aggregate, Row, divide, output_of, register_aggregate
from eval.metrics.chexbert_f1 import OBSERVATIONS, observations
from eval.metrics.registry import as_texts


@register_aggregate("chexbert_f1")
class ChexbertF1(Aggregate):
    """F1 of asserted observations against the first reference: `micro` over summed counts (the default) or `macro`.

    The macro mean leaves out observations that occur in neither; scikit-learn, which RadEval prints, counts them as 0.
    A failed sample asserts nothing.
    """

    def __init__(self, average: str = "micro", labels: Sequence[str] = OBSERVATIONS, name: str = "chexbert_f1") -> None:
        if average not in ("macro", "micro"):
            raise ValueError(f"average must be 'macro' or 'micro', not {average!r}")
        self.average, self.labels, self.name = average, tuple(labels), name

    def statistics(self, row: Row) -> np.ndarray | None:
        """(TP, FP, FN) of every label; None without a reference."""
        golds = as_texts(row.get("answers") or [])
        if not golds:
            return None
        said, gold = observations(output_of(row)), observations(golds[0])
        pairs = [(label in said, label in gold) for label in self.labels]
        return np.array([(a and b, a and not b, b and not a) for a, b in pairs], dtype=np.float64).ravel()

    def combine(self, sums: np.ndarray) -> np.ndarray:
        counts = sums.reshape(*sums.shape[:-1], -1, 3)
        if self.average == "micro":
            return _f1(counts.sum(-2))
        scores = _f1(counts)
        defined = ~np.isnan(scores)
        return divide(np.where(defined, scores, 0.0).sum(-1), defined.sum(-1), np.nan)


def _f1(counts: np.ndarray) -> np.ndarray:
    tp, fp, fn = counts[..., 0], counts[..., 1], counts[..., 2]
    return divide(2 * tp, 2 * tp + fp + fn, np.nan)
