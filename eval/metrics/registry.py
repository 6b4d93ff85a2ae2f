"""Where metrics register. A metric scores ONE prediction against its acceptable references: a float in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eval.registry import Registry

Metric = Callable[..., float]  # (prediction: str, references: Sequence[str], **options) -> float

metrics: Registry[Metric] = Registry("metric")
register_metric = metrics.register


def as_texts(references: Sequence[object] | object) -> list[str]:
    """References as strings: real answer columns hold integers, booleans and lone strings (VQA-RAD has all three)."""
    if isinstance(references, (str, int, float, bool)):
        references = [references]
    return [str(reference) for reference in references]
