"""Our own rule for option letters: deterministic, and it would rather read nothing than guess.

In this order: a letter that stands alone, in any case; what the response itself calls its answer ("the answer is X",
"Answer: X", `<answer>X</answer>`, `\\boxed{X}`; the last one counts); a leading letter ("B) a truck"); the one option
whose text occurs. Everything else is "": unreadable, wrong, and counted by `extraction_failed`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.metrics.mcq.registry import register_extractor

# Brackets, quotes, bold: what may stand around a letter. Possessive, so that a response of 10,000 stars costs nothing.
_OPEN = r"[\s*_(\[{\"'`$]*+"
_CLOSE = r"[*_)\]}\"'`$]*+"
_END = r"(?!'?\w)"  # no longer word: neither "Bus" nor "B's"
_ANNOUNCED = r"\b(?:answer|option|choice)[\s*_]*+(?:is\b|would\s+be\b|[:=])[\s*_:]*+(?:(?:option|choice)\b)?"
_TAGGED = r"<answer>|\\boxed\{(?:\\text\{)?"
_PRAISE = r"\s*(?:is|seems|looks)\s+(?:the\s+)?(?:correct|right|best)\b"
# Behind a leading letter these make it a topic ("A is wrong") or one of several ("A or B"), not the answer.
_TOPIC = r"\s*(?:(?:is|are|was|were|can|could|may|might|seems?|looks?|and|or|vs)\b|/|&)"


def _pattern(letters: Sequence[str]) -> str:
    """A group for one of the letters, in any case, the longest first ("AA" before "A")."""
    return "((?i:" + "|".join(re.escape(letter) for letter in sorted(letters, key=len, reverse=True)) + "))"


def _word(letter: str) -> str:
    return rf"(?<![\w']){re.escape(letter)}{_END}"


def _canonical(found: str, letters: Sequence[str]) -> str:
    """The letter as the question spells it; an exact match wins over one in another case."""
    return found if found in letters else next(letter for letter in letters if letter.lower() == found.lower())


def _words(text: str) -> str:
    """Lower-case words with single blanks; punctuation at their edges gone, so that "a truck." contains "a truck"."""
    return " ".join(word.strip(".,;:!?\"'`()[]{}*_") for word in text.casefold().split())


def _announced(response: str, letters: Sequence[str], options: Sequence[str]) -> str:
    """The last letter that is called the answer.

    A small letter counts only where a sentence ends, because "the answer is a bus" names no option; "B or C" is none;
    "the answer is A bus" names an option by its text, if that is one.
    """
    letter = _pattern(letters)
    several = rf"{_CLOSE}\s*(?:,|/|&|\bor\b|\band\b)\s*{_OPEN}{letter}{_END}"
    ends = re.compile(rf"\s*(?:$|\n|<|{_CLOSE}[.,;:!?]|[*_)\]}}\"'`]+)")
    texts = [f"{_words(option)} " for option in options]
    reach = 2 * max(map(len, texts), default=0)  # enough for the longest text and some extra blanks
    found = ""
    for match in re.finditer(rf"(?:(?i:{_ANNOUNCED})|(?i:{_TAGGED})){_OPEN}{letter}{_END}(?!{several})", response):
        here = f"{_words(response[match.start(1) : match.start(1) + reach])} "
        goes_on = response[match.end() : match.end() + 1].isspace()
        if goes_on and any(here.startswith(text) for text in texts if " " in text.strip()):
            continue
        if match[1] in letters or ends.match(response, match.end()):
            found = _canonical(match[1], letters)
    return found


def _leading(response: str, letters: Sequence[str], options: Sequence[str]) -> str:
    """A letter at the start with something behind it that ends it: ")", ".", ":", "-", the end of the line.

    A bare blank is enough for a capital that is no English word ("B because ..."), unless another letter follows or an
    option's text begins with that letter as a word (EgoSchema calls the camera's wearer C: "C cooks").
    """
    letter = _pattern(letters)
    match = re.match(rf"{_OPEN}(?i:(?:option|choice|answer)\s+)?{_OPEN}{letter}{_END}({_CLOSE})", response)
    if not match:
        return ""
    rest = response[match.end() :]
    if re.match(_PRAISE, rest):
        return _canonical(match[1], letters)
    if re.match(_TOPIC, rest):
        return ""
    if re.match(r"[.:)]|\s*(?:\n|$|[-–—])", rest) or re.search(r"[)\]]", match[2]):
        return _canonical(match[1], letters)
    others = [letter for letter in letters if letter != match[1] and re.search(_word(letter), response)]
    others += [option for option in options if _words(option).startswith(f"{match[1].casefold()} ")]
    return match[1] if match[1] in letters and match[1] not in ("A", "I") and not others else ""


def _by_text(response: str, letters: Sequence[str], options: Sequence[str]) -> str:
    """The one option whose text occurs as whole words. "red" inside an occurrence of "dark red" does not count.

    Two options with the same text cannot be told apart and two different ones are no decision: "".
    """
    left, found = f" {_words(response)} ", []
    texts = [(f" {_words(option)} ", letter) for option, letter in zip(options, letters)]
    for text in sorted({text for text, _ in texts if text.strip()}, key=len, reverse=True):
        if text in left:
            found += [letter for other, letter in texts if other == text]
            # Two blanks keep the neighbours apart without making a new occurrence.
            left = left.replace(text, "  ")
    return found[0] if len(found) == 1 else ""


@register_extractor("radio_vlm")
def radio_vlm(response: str, letters: Sequence[str], options: Sequence[str]) -> str:
    """See the top of the file. Letters are compared in any case, option texts by whole words in any case."""
    if not letters:
        return ""
    response = response.strip()
    alone = re.fullmatch(rf"{_OPEN}{_pattern(letters)}{_CLOSE}[\s.,;:!?]*+{_CLOSE}\s*", response)
    if alone:
        return _canonical(alone[1], letters)
    return (
        _announced(response, letters, options)
        or _leading(response, letters, options)
        or _by_text(response, letters, options)
    )
