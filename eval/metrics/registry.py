"""Where metrics register. A metric scores ONE prediction against its acceptable references: a float in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eval.registry import Registry, UnknownNameError

Metric = Callable[..., float]  # (prediction: str, references: Sequence[str], **options) -> float

metrics: Registry[Metric] = Registry("metric")
register_metric = metrics.register


def as_texts(references: Sequence[object] | object) -> list[str]:
    """References as strings: real answer columns hold integers, booleans and lone strings (VQA-RAD has all three).

    A missing answer (None) is no reference; it must not become the text "None".
    """
    if references is None or isinstance(references, (str, int, float, bool)):
        references = [references]
    return [str(reference) for reference in references if reference is not None]


def check_rule(metric: str, rule: str, known: Sequence[str]) -> None:
    """Raises UnknownNameError (a ValueError that lists `known`) unless `rule` is one of the rules of `metric`."""
    if rule not in known:
        raise UnknownNameError(f"unknown rule {rule!r} of metric {metric!r}; known: {', '.join(known)}")
