"""Which option a response chooses, by a named rule. Returns a LETTER, not a score: `mcq_accuracy` scores it.

The rules live in `eval.metrics.mcq`: "radio_vlm" is ours, the others follow lmms-eval 0.7.3, MMMU and VLMEvalKit
(e8e78f05) to the quirk. Where a public rule picks a random option because it found none, the result is "".
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.mcq import extractors
from eval.metrics.registry import as_texts, register_metric

# Letters of a question whose options are unknown; also lmms-eval's default.
DEFAULT_CHOICES = tuple("ABCDEFGH")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def letters_of(options: Sequence[str], choices: Sequence[str] | None = None) -> list[str]:
    """The option letters: `choices` if given, else A, B, ... for each option, else A-H where nothing is known."""
    return as_texts(choices) if choices else list(_ALPHABET[: len(options)] or DEFAULT_CHOICES)


@register_metric("mcq_option_extraction")
def mcq_option_extraction(
    prediction: str, references: Sequence[str], choices: Sequence[str] | None = None, extractor: str = "radio_vlm"
) -> str:
    """What the rule `extractor` reads from the prediction: a letter, or "" if nothing.

    `references` are the option TEXTS, `choices` their letters. Two rules may return something else: VLMEvalKit's
    `can_infer` gives "Z" for a refusal, lmms-eval's AI2D filter the whole response when it finds no letter. An
    unknown rule raises ValueError with the known ones.
    """
    options = as_texts(references)
    return extractors.get(extractor)(prediction, letters_of(options, choices), options)


def extraction_failed(
    prediction: str, options: Sequence[str], choices: Sequence[str] | None = None, extractor: str = "radio_vlm"
) -> bool:
    """Whether the rule read no valid letter; such answers are wrong, and a result says how many there were."""
    options = as_texts(options)
    found = mcq_option_extraction(prediction, options, choices, extractor)
    return comparable(found) not in {comparable(letter) for letter in letters_of(options, choices)}


def comparable(text: str) -> str:
    """Lower case without ASCII punctuation and outer blanks, as lmms-eval compares letters: "(C)" → "c"."""
    return "".join(char for char in text.lower() if char not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~").strip()
