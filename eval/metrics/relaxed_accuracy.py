"""Relaxed accuracy, the ChartQA metric (Methani et al., WACV 2020): numbers may be 5 % off, other text must be equal.

Follows lmms-eval 0.7.3 (`tasks/chartqa/utils.py`): "28%" is 0.28; commas, currency and words do not parse as numbers;
a reference of zero falls back to text equality; text is compared in lower case and NOT stripped. VLMEvalKit
(`vqa_eval.py`) strips the prediction first. Known weakness: years pass within 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.registry import as_texts, check_rule, register_metric

RULES = ("lmms_eval", "vlmevalkit")


def _to_float(text: str) -> float | None:
    """A number as Python's `float` reads it ("nan", "1_000" and full-width digits too); "28%" is 0.28; else None."""
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


@register_metric("relaxed_accuracy")
def relaxed_accuracy(
    prediction: str, references: Sequence[str], max_relative_change: float = 0.05, rule: str = "lmms_eval"
) -> float:
    """1.0 if any reference is met, else 0.0. No references: 0.0.

    rule="vlmevalkit" strips the prediction, which matters for text only: numbers parse with blanks around them.
    """
    check_rule("relaxed_accuracy", rule, RULES)
    if rule == "vlmevalkit":
        prediction = prediction.strip()
    value = _to_float(prediction)
    for reference in as_texts(references):
        target = _to_float(reference)
        if value is not None and target:  # zero cannot be a denominator
            if abs(value - target) / abs(target) <= max_relative_change:
                return 1.0
        elif prediction.lower() == reference.lower():
            return 1.0
    return 0.0
