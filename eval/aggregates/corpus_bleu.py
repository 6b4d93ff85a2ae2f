"""Corpus BLEU with an interval: n-gram matches and lengths are summed over samples, as its definition says.

The figure is in [0, 1] for both packages (sacrebleu prints 100 times it), to stand beside other figures.
"""

from __future__ import annotations

import numpy as np

from eval.aggregates.base import Aggregate, Row, output_of, register_aggregate
from eval.metrics.bleu import coco_bleu, coco_statistics, sacrebleu_scorer
from eval.metrics.registry import as_texts


@register_aggregate("corpus_bleu")
class CorpusBleu(Aggregate):
    """BLEU-`order` of `row["output"]` against `row["answers"]`; rows without a gold answer do not take part.

    A failed sample is an empty output: it adds nothing but reference length, and so costs brevity.
    """

    def __init__(
        self,
        order: int = 4,
        package: str = "sacrebleu",
        tokenize: str = "13a",
        lowercase: bool = False,
        smooth_method: str = "exp",
        name: str | None = None,
    ) -> None:
        if package not in ("sacrebleu", "pycocoevalcap"):
            raise ValueError(f"package must be 'sacrebleu' or 'pycocoevalcap', not {package!r}")
        if smooth_method == "add-k":
            raise ValueError("smooth_method 'add-k' is for single sentences; use 'exp', 'floor' or 'none' for a corpus")
        self.order = order
        self.package = package
        self.options = {"tokenize": tokenize, "lowercase": lowercase}
        self.smooth_method = smooth_method
        self.name = name or f"corpus_bleu{order}"

    def statistics(self, row: Row) -> np.ndarray | None:
        """(prediction length, closest reference length, matches of 1..order-grams, their totals)."""
        references = as_texts(row.get("answers") or [])
        if not references:
            return None
        if self.package == "pycocoevalcap":
            return coco_statistics(output_of(row), references, self.order)
        scorer = sacrebleu_scorer(self.order, **self.options, effective_order=True)
        score = scorer.sentence_score(output_of(row), references)
        return np.array([score.sys_len, score.ref_len, *score.counts, *score.totals], dtype=np.float64)

    def combine(self, sums: np.ndarray) -> np.ndarray:
        if self.package == "pycocoevalcap":
            return coco_bleu(sums)
        return np.apply_along_axis(self._sacrebleu, -1, sums)

    def _sacrebleu(self, sums: np.ndarray) -> float:
        lengths, counts = sums[:2].astype(int), sums[2:].tolist()
        return (
            sacrebleu_scorer(self.order, **self.options, effective_order=True)
            .compute_bleu(
                counts[: self.order],
                counts[self.order :],
                *lengths.tolist(),
                smooth_method=self.smooth_method,
                max_ngram_order=self.order,
            )
            .score
            / 100.0
        )
