"""How MMMU and, varying it, lmms-eval's EgoSchema read option letters (`eval_utils.py` of MMMU; lmms-eval 0.7.3).

Both fall back to a RANDOM option when nothing is found; here that is "". MMMU takes the last candidate of the first
form that matches, EgoSchema the first candidate of all forms. Known quirks, both: "D)" and "B) a truck" are not
forms; the article of "D. A book" is, so it is read as A; so is the last capital of any word before a blank ("DNA ").
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.mcq.registry import register_extractor


def _padded(response: str) -> str:
    """Outer punctuation gone - each mark once, in this order, so "A.," keeps its period - and a blank on both sides."""
    for mark in ",.!?;:'":
        response = response.strip(mark)
    return f" {response} "


def _mentioned(text: str, letters: Sequence[str], options: Sequence[str]) -> dict[str, int]:
    """Letters whose option text occurs in a response of more than five words → where it occurs last."""
    if len(text.split()) <= 5:
        return {}
    text = text.lower()
    wanted = zip(letters, (option.lower() for option in options))
    return {letter: text.rfind(option) for letter, option in wanted if option in text}


@register_extractor("mmmu.parse_multi_choice_response")
def mmmu(response: str, letters: Sequence[str], options: Sequence[str]) -> str:
    """(X), else X and a blank, else X and a period, else the option's text; several: the last position.

    Positions are those of "(X)", or of X between blanks even where another form had matched; what is not found there
    is at -1, and of equal positions the first letter wins.
    """
    text = _padded(response)
    for form, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        found = {letter: text.rfind(place.format(letter)) for letter in letters if form.format(letter) in text}
        if found:
            break
    else:
        found = _mentioned(text, letters, options)
    return max(found, key=found.__getitem__, default="")


@register_extractor("lmms_eval.egoschema")
def egoschema(response: str, letters: Sequence[str], options: Sequence[str]) -> str:
    """(X), X and a blank, X and a period, all forms together, else the option's text; several: the first position.

    "First" compares the last occurrence of each form.
    """
    text = _padded(response)
    found = [
        (text.rfind(form.format(letter)), letter)
        for form in ("({})", "{} ", "{}.")
        for letter in letters
        if form.format(letter) in text
    ]
    if not found:
        mentioned = _mentioned(text, letters, [option.strip() for option in options])
        found = [(position, letter) for letter, position in mentioned.items()]
    return min(found, key=lambda candidate: candidate[0], default=(0, ""))[1]
