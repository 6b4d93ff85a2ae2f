"""Accuracy on multiple-choice questions: is the option that a named rule reads from the response the gold one?

The rule decides points of the result (`mcq_option_extraction`), so it is reported with it. A response that cannot be
read is wrong - never skipped, never given a random option.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.mcq_option_extraction import comparable, letters_of, mcq_option_extraction
from eval.metrics.registry import as_texts, register_metric


def gold_letters(references: Sequence[str], options: Sequence[str], choices: Sequence[str] | None = None) -> set[str]:
    """Letters the references stand for, as `comparable`: each is a letter ("B", "(b)") or an option's text.

    A reference that is both is taken as the letter. Options that repeat the gold text are gold as well.
    """
    options = as_texts(options)
    letters = letters_of(options, choices)
    known = {comparable(letter) for letter in letters}
    gold = set()
    for reference in as_texts(references):
        if comparable(reference) in known:
            gold.add(comparable(reference))
        else:
            wanted = " ".join(reference.lower().split())
            texts = zip(letters, options)
            gold |= {comparable(letter) for letter, option in texts if " ".join(option.lower().split()) == wanted}
    return gold


@register_metric("mcq_accuracy")
def mcq_accuracy(
    prediction: str,
    references: Sequence[str],
    options: Sequence[str] = (),
    choices: Sequence[str] | None = None,
    extractor: str = "radio_vlm",
) -> float:
    """1.0 if the extracted letter is a gold one, else 0.0. No references, or none that is an option: 0.0.

    `references` hold the gold letter and/or the gold text, `options` the texts, `choices` their letters (A, B, ... by
    default). Letters are compared without case and punctuation, which is what lmms-eval does for AI2D.
    """
    found = comparable(mcq_option_extraction(prediction, as_texts(options), choices, extractor))
    return float(bool(found) and found in gold_letters(references, options, choices))
