"""MMMU (Yue et al., CVPR 2024): multiple-choice questions by their letter, open ones by `mmmu_open`, in one score.

`mmmu` reads letters with our own rule; `mmmu_official` as the benchmark's script and lmms-eval do, except that a
response without a readable letter is wrong instead of a random option (about one in four of those would be right).
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.mcq_accuracy import mcq_accuracy
from eval.metrics.mmmu_open import mmmu_open
from eval.metrics.registry import register_metric

MULTIPLE_CHOICE = "multiple-choice"
OPEN = "open"
OFFICIAL_RULE = "mmmu.parse_multi_choice_response"


@register_metric("mmmu")
def mmmu(
    prediction: str,
    references: Sequence[str],
    options: Sequence[str] = (),
    question_type: str = MULTIPLE_CHOICE,
    extractor: str = "radio_vlm",
) -> float:
    """1.0 for a right answer, else 0.0. `question_type` is the benchmark's: "multiple-choice" or "open".

    Raises ValueError for another type.
    """
    if question_type == OPEN:
        return mmmu_open(prediction, references)
    if question_type != MULTIPLE_CHOICE:
        raise ValueError(f"unknown question_type {question_type!r}; known: {MULTIPLE_CHOICE}, {OPEN}")
    return mcq_accuracy(prediction, references, options, extractor=extractor)


@register_metric("mmmu_official")
def mmmu_official(
    prediction: str, references: Sequence[str], options: Sequence[str] = (), question_type: str = MULTIPLE_CHOICE
) -> float:
    """`mmmu` with the benchmark's own rule for letters."""
    return mmmu(prediction, references, options, question_type, OFFICIAL_RULE)
