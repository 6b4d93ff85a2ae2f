"""Token precision: the share of an answer's words that a reference holds; words and quirks as in `token_recall`.

LLaVA-Med's "exact match score" is a precision too, under a misleading name: reference words that occur in the answer,
each counted once, over the length of the answer. It is here as `counting="llava_med exactmatch"`.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.registry import as_texts, register_metric
from eval.metrics.token_recall import CANDIDATE_COUNTS, token_counts, token_overlap

EXACTMATCH = "llava_med exactmatch"


@register_metric("token_precision")
def token_precision(
    prediction: str,
    references: Sequence[str],
    normalizer: str = "llava_med_v1",
    counting: str = CANDIDATE_COUNTS,
) -> float:
    """Share of the prediction's words that a reference holds, the best over references. No references: 0.0."""
    prediction = str(prediction)
    if counting != EXACTMATCH:
        scores = [token_overlap(prediction, text, normalizer, counting)[0] for text in as_texts(references)]
        return max(scores, default=0.0)
    mine = token_counts(prediction, normalizer)
    shared = [len(mine.keys() & token_counts(text, normalizer).keys()) for text in as_texts(references)]
    return max(shared, default=0) / mine.total() if mine else 0.0
