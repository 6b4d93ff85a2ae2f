"""ANLS, average normalised Levenshtein similarity, the DocVQA and InfoVQA metric (Biten et al., ICCV 2019).

Follows the rule that lmms-eval and VLMEvalKit share, quirks included: the distance is taken between texts that are
lower-cased with blanks collapsed, but divided by the length of the RAW texts, so extra blanks soften a mismatch;
a similarity of exactly the threshold is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.registry import as_texts, register_metric


def levenshtein(a: str, b: str) -> int:
    """Edit distance (insert, delete, substitute), O(len(a)·len(b)) with one row of memory."""
    if len(a) < len(b):
        a, b = b, a
    row = list(range(len(b) + 1))
    for i, char_a in enumerate(a, 1):
        above_left, row[0] = row[0], i
        for j, char_b in enumerate(b, 1):
            above_left, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above_left + (char_a != char_b))
    return row[-1]


@register_metric("anls")
def anls(prediction: str, references: Sequence[str], threshold: float = 0.5) -> float:
    """1 - the smallest normalised distance to a reference; 0.0 below `threshold`. No references: 0.0."""
    best = 0.0
    for reference in as_texts(references):
        longest = max(len(prediction), len(reference))
        distance = levenshtein(" ".join(prediction.lower().split()), " ".join(reference.lower().split()))
        best = max(best, 1.0 - distance / longest if longest else 1.0)
    return best if best >= threshold else 0.0
