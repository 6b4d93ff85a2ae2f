"""Temporal IoU of moment retrieval (Charades-STA, ActivityNet Captions: Gao et al., ICCV 2017): overlap of two spans.

The span is read from the answer by one rule, never guessed: JSON (`[12.5, 20]` or keys start and end), else two times
joined by "to", "-", "and", "until" or a comma, or named "start ... end ...": the FIRST such pair that there is. A time
is `12.5`, `12.5 s`, `2 min 3 s`, `00:12` or `1:02:03.5`; bare numbers are seconds, or of the unit that only the second
one bears ("1 to 2 minutes"). An answer without such a pair, or whose end lies before its start, scores 0.0.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from eval.metrics.registry import register_metric

_NUMBER = r"\d+(?:\.\d+)?"
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_UNIT = r"(?:hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)\b"
_CLOCK = r"\d+(?::\d{1,2}){1,2}(?:\.\d+)?(?:\s*s(?:ec(?:ond)?s?)?\b)?"
_TIME = rf"(?:{_CLOCK}|{_NUMBER}(?:\s*{_UNIT}(?:\s*{_NUMBER}\s*{_UNIT}){{0,2}})?)"
_JOINT = r"\s*(?:to|until|till|and|through|-|–|—|~|→|,|\.\.\.?)\s*"
_NAMED = r"\bstart(?:s|ing|[ _]time)?(?:\s+(?:at|from))?\s*[:=]?\s*"
_NAMED_END = r"[\s,;]*(?:and\s+)?end(?:s|ing|[ _]time)?(?:\s+at)?\s*[:=]?\s*"
_PAIR = re.compile(
    rf"(?:(?<![\w.:])({_TIME}){_JOINT}({_TIME})|{_NAMED}({_TIME}){_NAMED_END}({_TIME}))(?![\w:])", re.IGNORECASE
)
_PART = re.compile(rf"({_NUMBER})\s*({_UNIT})?", re.IGNORECASE)
_START, _END = ("start", "start_time", "begin", "from"), ("end", "end_time", "stop", "to")
_JSON = re.compile(r"[\[{][^\[\]{}]{1,200}[\]}]")


def read_span(text: str) -> tuple[float, float] | None:
    """(start, end) in seconds, None where the text holds no readable span."""
    for match in _JSON.finditer(text):
        span = _from_json(match[0])
        if span is not None:
            return _checked(*span)
    match = _PAIR.search(text)
    return None if match is None else _checked(*_seconds(match[1] or match[3], match[2] or match[4]))


def _from_json(text: str) -> tuple[float, float] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if isinstance(value, dict):
        value = [next((value[key] for key in keys if key in value), None) for keys in (_START, _END)]
    if len(value) != 2 or any(isinstance(time, bool) for time in value):
        return None
    if all(isinstance(time, (int, float)) for time in value):
        return float(value[0]), float(value[1])
    times = [str(time).strip() for time in value]
    return _seconds(*times) if all(re.fullmatch(_TIME, time, re.IGNORECASE) for time in times) else None


def _seconds(first: str, second: str) -> tuple[float, float]:
    """Two times in seconds; a bare first number has the unit of the second."""
    end, unit = _time(second, 1.0)
    bare = re.fullmatch(_NUMBER, first)
    return _time(first, unit if bare else 1.0)[0], end


def _time(text: str, bare: float) -> tuple[float, float]:
    """(seconds, the unit of the last part); a number without a unit counts `bare` seconds."""
    if ":" in text:
        parts = re.match(r"[\d:.]+", text)[0].split(":")
        return sum(float(part) * 60**power for power, part in enumerate(reversed(parts))), 1.0
    parts = _PART.findall(text)
    units = [_UNITS[unit[0].lower()] if unit else bare for _, unit in parts]
    return sum(float(number) * unit for (number, _), unit in zip(parts, units)), units[-1]


def _checked(start: float, end: float) -> tuple[float, float] | None:
    return (start, end) if math.isfinite(start) and math.isfinite(end) and start <= end else None


def span_iou(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Intersection over union of two spans; equal instants 1.0, an instant in a longer span 0.0."""
    union = max(a[1], b[1]) - min(a[0], b[0])
    if a == b:
        return 1.0
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0])) / union if union else 0.0


def gold_spans(references: Any) -> list[tuple[float, float]]:
    """References as spans: a pair of numbers, a list of pairs, or texts. Raises ValueError for what is no span."""
    if isinstance(references, (str, dict)):
        references = [references]
    references = list(references) if isinstance(references, Sequence) else [references]
    if len(references) == 2 and all(isinstance(time, (int, float)) for time in references):
        references = [references]
    spans = []
    for reference in references:
        text = reference if isinstance(reference, str) else json.dumps(reference)
        span = read_span(text)
        if span is None:
            raise ValueError(f"the gold answer {reference!r} is no span; write [start, end] in seconds")
        spans.append(span)
    return spans


@register_metric("temporal_iou")
def temporal_iou(prediction: str, references: Any, threshold: float | None = None) -> float:
    """IoU with the nearest gold span; with `threshold` 1.0 if it is at least that ("R@1, IoU=0.5"), else 0.0."""
    span = read_span(prediction if isinstance(prediction, str) else json.dumps(prediction))
    best = max((span_iou(span, gold) for gold in gold_spans(references)), default=0.0) if span else 0.0
    return best if threshold is None else float(best >= threshold)
