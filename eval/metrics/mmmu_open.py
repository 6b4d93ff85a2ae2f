"""MMMU's open questions (Yue et al., CVPR 2024): is one of the answers that can be read from the response right?

Follows the benchmark's own evaluation as lmms-eval 0.7.3 carries it (`tasks/mmmu/utils.py`; up to 0.7.2 a bug there
compared single characters). The response gives candidates: the tails of its lines after words like "is" or "answer",
and the numbers in them. Texts match when a candidate CONTAINS the reference, numbers when equal at two decimals.

Known quirks: "75" is wrong for "75%" and "10000" for "$10,000" (references that are not bare numbers stay text);
a candidate that contains the reference anywhere is right, so listing all options is rewarded; sentences are never
split, because the text is lower-cased before a capital letter is looked for; an empty reference matches any text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.metrics.registry import as_texts, register_metric

# What announces an answer. The equals sign counts in the last line only, which may be a bare equation.
_ANNOUNCERS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_BARE_PUNCTUATION = frozenset(":,.!?;'")

_GROUPED = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")  # 1,234,567
_SCIENTIFIC = re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+")  # 6.02e23
_SIMPLE = re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])")  # 12, 3.5, .5; not a part of the above


def numbers_in(text: str) -> list[str]:
    """All numbers written in a text: with thousands separators, in scientific notation, plain."""
    return [number for pattern in (_GROUPED, _SCIENTIFIC, _SIMPLE) for number in pattern.findall(text)]


def normalise(text: str) -> list[str | float]:
    """A number at two decimals, or lower-case text; a single letter comes padded left and right, never bare.

    Padding keeps the reference "a" from being found inside every word.
    """
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _tail(line: str, announcers: Sequence[str]) -> str:
    """The shortest text behind the last occurrence of an announcer; "" if none announces anything.

    An empty tail does not count as short: the next one replaces it, whatever its length.
    """
    shortest = ""
    for announcer in announcers:
        if announcer in line:
            tail = line.rpartition(announcer)[2].strip()
            if not shortest or len(tail) < len(shortest):
                shortest = tail
    return shortest


def candidates(response: str) -> set[str | float]:
    """What MMMU's parser reads as possible answers of a response: lower-case strings and floats."""
    response = response.strip().strip(".").lower()
    *lines, last = response.split("\n")
    tails = [_tail(line, _ANNOUNCERS) for line in lines] + [_tail(last, (*_ANNOUNCERS, "="))]
    texts = [tail for tail in tails if tail and tail not in _BARE_PUNCTUATION] or [response]
    found = texts + [number for text in texts for number in numbers_in(text)]
    return {value for text in found for value in normalise(text)}


@register_metric("mmmu_open")
def mmmu_open(prediction: str, references: Sequence[str], parsed: Sequence[str] | None = None) -> float:
    """1.0 if a candidate of the prediction meets a reference, else 0.0. No references: 0.0.

    `parsed` (what some parser had read from the response) is accepted so that a stored result can be passed as it
    is; the score always comes from `prediction`.
    """
    golds = [value for reference in as_texts(references) for value in normalise(reference)]
    texts = [gold for gold in golds if isinstance(gold, str)]
    numbers = [gold for gold in golds if isinstance(gold, float)]
    for candidate in candidates(prediction):
        if isinstance(candidate, str):
            if any(text in candidate for text in texts):
                return 1.0
        elif candidate in numbers:
            return 1.0
    return 0.0
