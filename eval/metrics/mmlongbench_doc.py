"""MMLongBench-Doc (Ma et al., NeurIPS 2024): one rule per answer format - Int, Float, Str, List, None (not answerable).

Follows lmms-eval 0.7.3 (`tasks/mmlongbench_doc/utils.py`), which reads the first number of the raw response, or
VLMEvalKit (`mmlongbench.py`), which scores what a GPT judge extracted before: run on raw responses it is stricter
("The answer is 3" is no integer). Known quirks, both: a similarity of exactly 0.5 is 0 (plain ANLS keeps it); what
looks like an address, date, page or number must be equal; brackets and their content are dropped, so "(7)" is empty;
lists count by their WORST element. VLMEvalKit has no rule for None: "not answerable." still gets 0.93.

VLMEvalKit runs `eval` on answers that start with "["; here they are only parsed as literals, which differs for
answers that hold code.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Sequence

from eval.metrics.anls import levenshtein
from eval.metrics.registry import as_texts, check_rule, register_metric

RULES = ("lmms_eval", "vlmevalkit")
_ALIASES = {"integer": "int", "string": "str"}
NOT_ANSWERABLE = "not answerable"

_NUMBER = re.compile(r"[-+]?\d*\.?\d+")
_BRACKETS = re.compile(r"\s*\([^)]*\)")
_OUTER_QUOTE = re.compile(r"^['\"]|['\"]$")
_UNITS = (" miles", " mile", " million")
_EXACT_SHAPES = [
    re.compile(shape)
    for shape in (
        r"\b\d+(-\d+|\s\d+)?\b",  # a number, a range, a telephone number
        r"\b\d{4}[-\s]\d{2}[-\s]\d{2}\b",  # a day
        r"\b\d{4}[-\s]\d{2}\b",  # a month
        r"[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}",  # an e-mail address
    )
]
# What must be equal: (parts, endings); the start "page" and the shapes above count in both rules.
_EXACT_TEXT = {
    "lmms_eval": (("https://", "http://", "a.m.", "p.m."), (".py", ".ipynb")),
    "vlmevalkit": (("https://", "a.m.", "p.m."), (".py", "ipynb")),
}


def clean(text: str, rule: str = "lmms_eval") -> str:
    """Lower case without brackets, outer quotes, leading $ and trailing %; lmms-eval also drops units and blanks."""
    text = _BRACKETS.sub("", text.lower().strip()).strip()
    text = _OUTER_QUOTE.sub("", text).strip()
    text = text.lstrip("$").strip().rstrip("%").strip()
    if rule == "lmms_eval":
        for unit in _UNITS:
            text = text.removesuffix(unit).strip()
        text = " ".join(text.split())
    return text


def _must_be_equal(gold: str, rule: str) -> bool:
    parts, endings = _EXACT_TEXT[rule]
    return (
        any(part in gold for part in parts)
        or gold.endswith(endings)
        or gold.startswith("page")
        or any(shape.fullmatch(gold) for shape in _EXACT_SHAPES)
    )


def _similarity(gold: str, text: str, rule: str) -> float:
    """1 - normalised distance, 0.0 from 0.5 downwards. VLMEvalKit counts the letters in upper case."""
    if rule == "lmms_eval":
        longest = max(len(gold), len(text))
    else:
        longest = max(len(gold.upper()), len(text.upper()))
    score = 1.0 - levenshtein(gold, text) / longest if longest else 1.0
    return score if score > 0.5 else 0.0


def _first_number(text: str) -> float | None:
    found = _NUMBER.search(text.replace(",", ""))
    return float(found.group()) if found else None


def _python_number(text: str) -> float | None:
    try:
        return float(clean(text, "vlmevalkit"))
    except ValueError:
        return None


def _decimals(value: float) -> int:
    """Digits behind the point as Python prints them; 3 where it prints none (1e-05)."""
    _, point, digits = str(value).partition(".")
    return len(digits) if point else 3


def _floats_agree(gold: float, value: float) -> bool:
    """Within 1 %, or equal at the coarser precision of the two (2 decimals at least); the gold may be a percentage."""
    for target in (gold / 100.0, gold, gold * 100.0):
        decimals = max(min(_decimals(value), _decimals(target)), 2)
        if math.isclose(target, value, rel_tol=0.01) or round(value, decimals) == round(target, decimals):
            return True
    return False


def _literal(text: str) -> object:
    """The Python literal a text spells, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return text


def _items(text: str, rule: str) -> list[str]:
    """Elements of a list answer; anything that is not a list is a list of one."""
    if rule == "vlmevalkit" and not text.startswith("["):
        return [text]
    value = _literal(text)
    if rule == "vlmevalkit" and value is text:
        raise ValueError("a list answer that cannot be read")
    if value is None:  # the answer "None" is an empty list
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _is_numeric(text: str, rule: str) -> bool:
    if rule == "lmms_eval":
        return _first_number(text) is not None
    try:
        float(text)
    except ValueError:
        return False
    return True


def _score_int(gold: str, text: str, rule: str) -> float:
    try:
        if rule == "vlmevalkit":
            return float(int(gold) == int(float(text)))
        numbers = _first_number(gold), _first_number(text)
        return float(None not in numbers and int(numbers[0]) == int(numbers[1]))
    except (ValueError, OverflowError):  # no integer; an infinite one
        return float(rule == "vlmevalkit" and gold == "")


def _score_float(gold: str, text: str, rule: str) -> float:
    read = _first_number if rule == "lmms_eval" else _python_number
    target, value = read(gold), read(text)
    return float(target is not None and value is not None and _floats_agree(target, value))


def _score_str(gold: str, text: str, rule: str) -> float:
    gold, text = clean(gold, rule), clean(text, rule)
    return float(gold == text) if _must_be_equal(gold, rule) else _similarity(gold, text, rule)


def _score_list(gold: str, text: str, rule: str) -> float:
    try:
        golds, found = (sorted(clean(item, rule) for item in _items(answer, rule)) for answer in (gold, text))
    except ValueError:
        return 0.0
    if len(golds) != len(found):
        return 0.0
    if not golds:
        return float(rule == "lmms_eval")
    if _is_numeric(golds[0], rule) or _must_be_equal(golds[0], rule):
        # VLMEvalKit joins first: ["a-b", "c"] equals ["a", "b-c"].
        return float(golds == found if rule == "lmms_eval" else "-".join(golds) == "-".join(found))
    return min(_similarity(*pair, rule) for pair in zip(golds, found, strict=True))


def _score_none(gold: str, text: str, rule: str) -> float:
    return float(clean(text) == NOT_ANSWERABLE) if rule == "lmms_eval" else _score_list(gold, text, rule)


_SCORES = {"int": _score_int, "float": _score_float, "str": _score_str, "list": _score_list, "none": _score_none}


@register_metric("mmlongbench_doc")
def mmlongbench_doc(
    prediction: str, references: Sequence[str], answer_format: str = "Str", rule: str = "lmms_eval"
) -> float:
    """Score in [0, 1] of the best reference under the rule of its format (Int, Float, Str, List or None).

    A list answer is ONE reference, the text of a Python list ("['a', 'b']"). No references: 0.0. An unknown format
    raises ValueError.
    """
    check_rule("mmlongbench_doc", rule, RULES)
    kind = str(answer_format or "Str").strip().lower()
    kind = _ALIASES.get(kind, kind)
    if kind not in _SCORES:
        raise ValueError(f"unknown answer_format {answer_format!r}; known: {', '.join([*_SCORES, *_ALIASES])}")
    text = prediction.strip() if rule == "lmms_eval" else prediction
    return max((_SCORES[kind](gold, text, rule) for gold in as_texts(references)), default=0.0)


def is_answerable(answer: str) -> bool:
    """False for "Not answerable" in any spelling that `clean` forgives; asked of golds and of predictions."""
    return clean(answer) != NOT_ANSWERABLE
