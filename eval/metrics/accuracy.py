"""Accuracy of short answers and options ("left", "Yes.", "(B)"): equal after a small, written-down normalisation.

Case, outer blanks, repeated blanks, a leading article and surrounding punctuation do not count; everything else
does. A lone option letter may carry brackets. No guessing from longer text: an answer that cannot be read is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.metrics.registry import as_texts, register_metric

_EDGES = " \t\n.,;:!?\"'`()[]{}*"
_ARTICLE = re.compile(r"^(?:a|an|the) (?=\S)")


def normalise_answer(text: str) -> str:
    """`"  The Left. "` → `"left"`, `"(b)"` → `"b"`; a bare article stays, since "A" may be an option."""
    return _ARTICLE.sub("", " ".join(text.lower().split()).strip(_EDGES))


@register_metric("accuracy")
def accuracy(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the normalised prediction equals a normalised reference, else 0.0. No references: 0.0."""
    return float(normalise_answer(prediction) in {normalise_answer(reference) for reference in as_texts(references)})
