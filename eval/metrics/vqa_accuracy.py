"""VQA accuracy (Antol et al., ICCV 2015), the TextVQA metric: how many of the annotators gave this answer?

Both texts are normalised as the VQA challenge does (`evalai_text`), then compared for equality. Follows lmms-eval
0.7.3 (`tasks/textvqa/utils.py`) or VLMEvalKit (`vqa_eval.py`), which normalise differently.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.evalai_text import normalise_vqa_answer
from eval.metrics.registry import as_texts, check_rule, register_metric

RULES = ("lmms_eval", "vlmevalkit")


@register_metric("vqa_accuracy")
def vqa_accuracy(
    prediction: str, references: Sequence[str], num_annotators: int | None = None, rule: str = "lmms_eval"
) -> float:
    """Mean over the annotators of min(1, how many of the OTHERS agree with the prediction / 3). No references: 0.0.

    With ten annotators of whom k agree: 0.3, 0.6, 0.9 for k = 1, 2, 3, then 1.0. Known quirk: fewer annotators cap
    the score (three that agree: 0.667; a lone reference: always 0.0), so it must not be used with one gold answer.
    `num_annotators` is for the record: the references are counted themselves.
    """
    check_rule("vqa_accuracy", rule, RULES)
    wanted = normalise_vqa_answer(prediction, rule)
    answers = [normalise_vqa_answer(reference, rule) for reference in as_texts(references)]
    agree = answers.count(wanted)
    disagree = len(answers) - agree
    credit = agree * min(1.0, (agree - 1) / 3) + disagree * min(1.0, agree / 3)
    return credit / len(answers) if answers else 0.0
