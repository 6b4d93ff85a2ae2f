"""Token recall, the figure LLaVA-Med (Li et al., NeurIPS 2023) reports for open medical questions as "recall".

Follows LLaVA-Med @e9972cfe, `eval_metrics/evaluate_metrics.py` and `glossary.py`, quirks included: a shared word counts
as often as the PREDICTION holds it ("lung" finds all of "lung lung"), "-" and "/" separate words unless the text has
one beside a blank, at most 32 full stops are removed, "none" is "0". Order and laterality count little: "right lung"
recalls half of "left lung". `token_precision` and `token_f1` are its companions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from eval.metrics.registry import as_texts, register_metric

CANDIDATE_COUNTS = "candidate counts for overlap"
MULTISET = "multiset"

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"(\d)(\,)(\d)")
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_FULL_STOPS = 32  # the original passes `re.UNICODE`, which is 32, where `re.sub` takes a count
_NUMBERS = dict(
    zip("none zero one two three four five six seven eight nine ten".split(), "0 0 1 2 3 4 5 6 7 8 9 10".split())
)
_ARTICLES = frozenset(("a", "an", "the"))
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:i] + word[i + 1 :] for i, letter in enumerate(word) if letter == "'"]


_CONTRACTIONS = {wrong: word for word in _CONTRACTED for wrong in _without_one_apostrophe(word)}
_CONTRACTIONS["somebody'd"] = "somebodyd"  # the original has this pair the wrong way round


def normalise_llava_med(text: str) -> str:
    """`"The left-lung isnt 2.5 cm (two)."` → `"left lung isn't 2.5 cm 2"`: marks, articles, numbers, contractions."""
    number = _COMMA_IN_NUMBER.search(text) is not None
    result = text
    for mark in _PUNCTUATION:
        glued = number or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if glued else " ")
    result = _FULL_STOP.sub("", result, count=_MOST_FULL_STOPS)
    words = [_NUMBERS.get(word, word) for word in result.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


NORMALIZERS = {"llava_med_v1": normalise_llava_med, "none": lambda text: text}


def token_counts(text: str, normalizer: str = "llava_med_v1") -> Counter[str]:
    """How often each word occurs in the normalised text. Raises ValueError for an unknown normalizer."""
    if normalizer not in NORMALIZERS:
        raise ValueError(f"unknown normalizer {normalizer!r}; known: {', '.join(NORMALIZERS)}")
    return Counter(NORMALIZERS[normalizer](text).lower().split())


def token_overlap(
    prediction: str, reference: str, normalizer: str = "llava_med_v1", counting: str = CANDIDATE_COUNTS
) -> tuple[float, float]:
    """(precision, recall) of the prediction's words; (0.0, 0.0) if either text has none.

    `counting`: "candidate counts for overlap" is LLaVA-Med's; "multiset" matches each word at most as often as both
    texts hold it (SQuAD's rule), so that repeating a word earns nothing.
    """
    mine, gold = token_counts(prediction, normalizer), token_counts(reference, normalizer)
    if counting == MULTISET:
        shared = (mine & gold).total()
        missed = gold.total() - shared
    elif counting == CANDIDATE_COUNTS:
        shared = sum(count for word, count in mine.items() if word in gold)
        missed = sum(count for word, count in gold.items() if word not in mine)
    else:
        raise ValueError(f"unknown counting {counting!r}; known: {CANDIDATE_COUNTS!r}, {MULTISET!r}")
    if not shared:
        return 0.0, 0.0
    return shared / mine.total(), shared / (shared + missed)


@register_metric("token_recall")
def token_recall(
    prediction: str,
    references: Sequence[str],
    normalizer: str = "llava_med_v1",
    counting: str = CANDIDATE_COUNTS,
) -> float:
    """Share of a reference's words that the prediction holds, the best over references. No references: 0.0."""
    scores = [token_overlap(str(prediction), text, normalizer, counting)[1] for text in as_texts(references)]
    return max(scores, default=0.0)
