"""ANLS, average normalised Levenshtein similarity, the DocVQA and InfoVQA metric (Biten et al., ICCV 2019).

Follows the rule that lmms-eval 0.7.3 (`api/metrics.py`) and VLMEvalKit (`vqa_eval.py`) share, quirks included: the
distance is taken between texts that are lower-cased with blanks collapsed, but divided by the length of the RAW
texts in upper case, so extra blanks soften a mismatch and a German sharp s counts as two letters; a similarity of
exactly the threshold is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.registry import as_texts, check_rule, register_metric

RULES = ("lmms_eval", "vlmevalkit")


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


def _flat(text: str) -> str:
    return " ".join(text.lower().split())


@register_metric("anls")
def anls(prediction: str, references: Sequence[str], threshold: float = 0.5, rule: str = "lmms_eval") -> float:
    """1 - the smallest normalised distance to a reference; 0.0 below `threshold`. No references: 0.0.

    `rule` is accepted for symmetry with the other metrics: both public rules give the same number. Two empty texts
    score 1.0. Known quirk: an answer that wraps the right one in a sentence scores 0, half of a short one 0.5.
    """
    check_rule("anls", rule, RULES)
    distances = []
    for reference in as_texts(references):
        longest = max(len(prediction.upper()), len(reference.upper()))
        distances.append(levenshtein(_flat(prediction), _flat(reference)) / longest if longest else 0.0)
    score = 1.0 - min(distances, default=1.0)
    return score if score >= threshold and distances else 0.0
