"""VLMEvalKit's rules for option letters (at e8e78f05): multiple choice in general, Video-MME, LongVideoBench.

Where the first one finds nothing, the toolkit asks an LLM judge, or with `exact_matching` counts a wrong answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from eval.metrics.mcq.registry import register_extractor

# What its authors saw models say instead of an answer; "Z" is their letter for "none of the options".
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_API_FAILURE = "Failed to obtain answer via API"
_TO_BLANKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)


@register_extractor("vlmevalkit.can_infer")
def can_infer(response: str, letters: Sequence[str], options: Sequence[str]) -> str:
    """One option letter as a token among the last four, else "answer is X", else one option text (`matching_util.py`).

    A refusal, or the token Z alone, gives "Z". Known quirks: "The answer is a yellow bus" gives A (the phrase is
    searched in any case and without a word boundary); texts count only in responses up to twice as long as all of
    them together, as substrings, where an empty option is contained in everything.
    """
    return _by_letter(response, letters) or _by_text(response, letters, options)


def _by_letter(response: str, letters: Sequence[str]) -> str:
    if _API_FAILURE in response:
        return ""
    if any(refusal in response for refusal in _REFUSALS):
        return "Z"
    tokens = response.translate(_TO_BLANKS).split()
    found = [letter for letter in letters if letter in tokens]
    if len(found) == 1 and tokens.index(found[0]) > len(tokens) - 5:
        return found[0]
    if not found and "Z" in tokens:
        return "Z"
    match = _ANSWER_IS.search(response)
    return match[1].upper() if match and match[1].upper() in letters else ""


def _by_text(response: str, letters: Sequence[str], options: Sequence[str]) -> str:
    response = response.lower()
    if len(response) > 2 * sum(len(option) for option in options):
        return ""
    found = [letter for letter, option in zip(letters, options) if option.lower() in response]
    return found[0] if len(found) == 1 else ""


def first_capital(response: str, phrases: Iterable[str], capitals: str) -> str:
    """The first of `capitals` anywhere in the response once each phrase is deleted, in order; "" if there is none."""
    response = response.strip()
    for phrase in phrases:
        response = response.replace(phrase, "")
    return next((char for char in response if char in capitals), "")


# Two commas are missing in the published list, so four phrases are two long ones that nobody says.
_PHRASES = (
    *("The best answer is", "The correct answer is", "The answer is", "The answer"),
    *("The best option is" + "The correct option is", "Best answer:" + "Best option:", "Answer:", "Option:"),
)


@register_extractor("vlmevalkit.extract_characters_regex")
def extract_characters_regex(response: str, letters: Sequence[str], options: Sequence[str]) -> str:
    """The first of A-D anywhere once known phrases are deleted, whatever the options: Video-MME (`videomme.py`).

    Known quirks: "Best option: C" and "Based on the video, C." give B, "Cannot determine the answer" gives C.
    """
    return first_capital(response, _PHRASES, "ABCD")


@register_extractor("vlmevalkit.longvideobench")
def longvideobench(response: str, letters: Sequence[str], options: Sequence[str]) -> str:
    """As for Video-MME with five letters, A-E: LongVideoBench (`longvideobench.py`)."""
    return first_capital(response, _PHRASES, "ABCDE")
