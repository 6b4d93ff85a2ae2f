"""Relaxed accuracy, the ChartQA metric (Methani et al., WACV 2020): numbers may be 5 % off, other text must be equal.

Follows lmms-eval: "28%" is 0.28; commas, currency and words do not parse as numbers; a reference of zero falls back
to text equality; text is compared in lower case and NOT stripped (VLMEvalKit strips the prediction). Known weakness:
years pass within 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.registry import as_texts, register_metric


def _to_float(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


@register_metric("relaxed_accuracy")
def relaxed_accuracy(prediction: str, references: Sequence[str], max_relative_change: float = 0.05) -> float:
    """1.0 if any reference is met, else 0.0. No references: 0.0."""
    value = _to_float(prediction)
    for reference in as_texts(references):
        target = _to_float(reference)
        if value is not None and target:  # zero cannot be a denominator
            if abs(value - target) / abs(target) <= max_relative_change:
                return 1.0
        elif prediction.lower() == reference.lower():
            return 1.0
    return 0.0
