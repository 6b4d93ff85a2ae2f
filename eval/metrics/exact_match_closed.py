"""Exact match of short medical answers (yes/no, organ, modality), by the rule of whoever is compared with.

| rule | source | two answers are equal when |
|---|---|---|
| `slake` | lmms-eval 0.7.3, `tasks/slake/utils.py` | their English or Chinese normal forms are: `normalise_slake` |
| `strict` (default) | VILA-M3's VQA-RAD and SLAKE scripts | their `strip().lower()` is |
| `vila_m3` | the same; PathVQA (`dataset="pathvqa"`) does not strip | their `lower()` is, stripped or not |
| `llava_med` | LLaVA-Med's `run_eval.py`, repaired | the first yes/no WORD of the answer is the gold one |
| `lmms_exact_match` | lmms-eval's `exact_match` (case, punctuation ignored) | lower case less ASCII punctuation is |

LLaVA-Med's own code asks whether the gold text is a SUBSTRING of an answer that holds "yes" or "no" (so "normal" holds
"no") and drops a wrong yes/no answer from the denominator; here every sample counts.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence

from eval.metrics.registry import as_texts, register_metric

YES = frozenset("yes yeah yep true 是 是的 有 包含 可以 能 会 正常".split())
NO = frozenset("no nope false 否 不是 没有 无 不包含 不能 不会 不可以 不正常 异常".split())
_CHINESE_PUNCTUATION = "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～、，。；：《》？【】（）"
_PUNCTUATION_TO_BLANK = str.maketrans(dict.fromkeys(string.punctuation + _CHINESE_PUNCTUATION, " "))
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_YES_NO = re.compile(r"\b(?:yes|no)\b")


def normalise_slake(text: object) -> str:
    """`" X-ray (chest)"` → `"xray"`, `"True"` → `"yes"`, `"没有。"` → `"no"`; the article stays.

    Lower case; what stands in brackets goes; punctuation, full-width too, becomes a blank and blanks are squeezed; the
    WHOLE text is then replaced where it is a way to write X-ray, yes or no. Quirk: 正常 ("normal") counts as yes.
    """
    text = "" if text is None else str(text).strip().lower()
    text = re.sub(r"（[^）]*）", " ", re.sub(r"\([^)]*\)", " ", text))
    text = " ".join(text.translate(_PUNCTUATION_TO_BLANK).split())
    text = "xray" if text == "x ray" else text
    return "yes" if text in YES else "no" if text in NO else text


def first_yes_no(text: object) -> str | None:
    """ "yes" or "no", whichever stands first as a word of its own ("know" and "not" hold no "no"); None for neither."""
    match = _YES_NO.search(str(text).lower())
    return match[0] if match else None


def _lower(text: object) -> str:
    return str(text).lower()


def _strict(text: object) -> str:
    return str(text).strip().lower()


def _lmms(text: object) -> str:
    text = str(text)  # cut as numpy's fixed-width strings cut it, where lmms-eval keeps it
    return text.lower()[: len(text)].translate(_NO_PUNCTUATION).rstrip("\0")


RULES: dict[str, Callable[[object], str]] = {
    "slake": normalise_slake,
    "strict": _strict,
    "vila_m3": _strict,
    "lmms_exact_match": _lmms,
}


@register_metric("exact_match_closed")
def exact_match_closed(
    prediction: str,
    references: Sequence[str],
    rule: str | None = None,
    normalizer: str | None = None,
    dataset: str | None = None,
) -> float:
    """1.0 if the answer equals a reference under `rule` (also called `normalizer`), else 0.0. No references: 0.0.

    Under `llava_med` a gold answer that is neither yes nor no is compared as words: the whole answer must be equal.
    """
    if rule and normalizer and rule != normalizer:
        raise ValueError(f"rule={rule!r} and normalizer={normalizer!r} are two names of one option; give one")
    rule = rule or normalizer or "strict"
    golds = as_texts(references)
    if rule == "llava_med":
        return float(any(_llava_med(prediction, gold) for gold in golds))
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; known: {', '.join(sorted([*RULES, 'llava_med']))}")
    normalise = _lower if rule == "vila_m3" and str(dataset).lower() == "pathvqa" else RULES[rule]
    return float(normalise(prediction) in {normalise(gold) for gold in golds})


def _llava_med(prediction: object, gold: str) -> bool:
    wanted = _strict(gold).strip(string.punctuation)
    if wanted in ("yes", "no"):
        return first_yes_no(prediction) == wanted
    return _strict(prediction).strip(string.punctuation) == wanted
