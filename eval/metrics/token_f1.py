"""Token F1: harmonic mean of token precision and recall; words and quirks as in `token_recall`.

With `counting="multiset", normalizer="none"` it is the F1 of SQuAD (Rajpurkar et al., EMNLP 2016) less its articles and
punctuation rules.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.registry import as_texts, register_metric
from eval.metrics.token_recall import CANDIDATE_COUNTS, token_overlap


@register_metric("token_f1")
def token_f1(
    prediction: str,
    references: Sequence[str],
    normalizer: str = "llava_med_v1",
    counting: str = CANDIDATE_COUNTS,
) -> float:
    """2PR / (P + R) of the prediction's words, the best over references. No references, no shared word: 0.0."""
    best = 0.0
    for reference in as_texts(references):
        precision, recall = token_overlap(str(prediction), reference, normalizer, counting)
        best = max(best, 2 * precision * recall / (precision + recall) if precision else 0.0)
    return best
