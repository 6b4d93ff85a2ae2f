"""Exact match: the prediction is one of the references, character for character, once outer blanks are gone.

Deliberately strict - case, punctuation and inner blanks count - because the synthetic answers are exact strings and
a lenient rule would hide half-read numbers. `accuracy` is the forgiving neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.registry import as_texts, register_metric


@register_metric("exact_match")
def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the stripped prediction equals a stripped reference, else 0.0. No references: 0.0."""
    return float(prediction.strip() in {reference.strip() for reference in as_texts(references)})
