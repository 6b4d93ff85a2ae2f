"""Val and test records: one question, its true answer, no card and no result: the evaluation's session brings those.

Only true answers count here, never an expert's: a topic without label is not asked. The experts are run all the same,
to know where the right answer is that an expert fails on the image, or that its result and the image disagree.
"""

import random
from typing import Any

from training.data.expert_dialogues.dialogues import Dialogues, Work, plain_row, reports, wanted
from training.data.expert_dialogues.turns import answered_at_once
from vlm.experts import get_expert
from vlm.experts.topics import REPORT, REPORT_QUESTIONS


def single_questions(dialogues: Dialogues, work: Work) -> list[dict[str, Any]]:
    """The records of one image: every labelled topic, every question of its own, one of another modality, its report.

    A form whose share is 0 is left out.
    """
    rng = random.Random(f"{dialogues.seed} {work.image.number} questions")
    rows = [
        *_topics(dialogues, work, rng), *_failures(dialogues, work, rng), *_plain(dialogues, work),
        *_foreign(dialogues, work, rng), *_reports(dialogues, work, rng),
    ]  # fmt: skip
    records = []
    for n, (form, fields) in enumerate(rows):
        if dialogues.shares[form]:
            records.append(dialogues.record(work, form, n, **fields))
    return records


def _topics(dialogues: Dialogues, work: Work, rng: random.Random) -> list[tuple[str, dict[str, Any]]]:
    rows = []
    for ask in dialogues.asks[work.image.number]:
        if ask.truth is None:
            continue
        question = dialogues.wording.question(rng, ask.topic.name, ask.topic.questions)
        fields = plain_row(answered_at_once(work.items, [], question, ask.truth), ask.topic.name, ask.truth)
        fields["expert"] = wanted(ask.found)
        if ask.disagrees:  # saying so is as right as the true answer
            said = dialogues.wording.all_answers("contradiction", expert=ask.found.expert, answer=ask.truth)
            fields["answers"] = [ask.truth, *said]
        rows.append(("contradiction" if ask.disagrees else "expert", fields))
    return rows


def _failures(dialogues: Dialogues, work: Work, rng: random.Random) -> list[tuple[str, dict[str, Any]]]:
    """Declared topics with a true answer whose expert cannot read the image; the true answer is right, too."""
    rows = []
    for found in work.founds:
        for topic in () if found.ok else get_expert(found.expert).topics:
            truth = work.image.labels.get(topic.name)
            if truth is None or topic.arguments != found.arguments:
                continue
            question = dialogues.wording.question(rng, topic.name, topic.questions)
            answers = [*dialogues.wording.all_answers("fails", expert=found.expert), truth]
            fields = plain_row(answered_at_once(work.items, [], question, answers[0]), topic.name, answers[0])
            rows.append(("fails", fields | {"answers": answers, "expert": wanted(found)}))
    return rows


def _plain(dialogues: Dialogues, work: Work) -> list[tuple[str, dict[str, Any]]]:
    form = "no_expert" if dialogues.fitting(work) else "vqa"
    return [
        (form, plain_row(answered_at_once(work.items, [], one.question, one.answer), one.kind, one.answer))
        for one in dialogues.questions(work)
    ]


def _foreign(dialogues: Dialogues, work: Work, rng: random.Random) -> list[tuple[str, dict[str, Any]]]:
    if (found := dialogues.foreign(rng, work)) is None:
        return []
    card, question, kind = found
    answers = dialogues.wording.all_answers("wrong_modality", **dialogues.foreign_words(work, card))
    fields = plain_row(answered_at_once(work.items, [], question, answers[0]), kind, answers[0])
    return [("wrong_modality", fields | {"answers": answers, "offer": [card.name]})]


def _reports(dialogues: Dialogues, work: Work, rng: random.Random) -> list[tuple[str, dict[str, Any]]]:
    report = work.image.report
    if not report:
        return []
    question = dialogues.wording.question(rng, REPORT, REPORT_QUESTIONS)
    fields = plain_row(answered_at_once(work.items, [], question, report), REPORT, report)
    fields["expert"] = next((wanted(found) for found in work.founds if found.ok and reports(found)), None)
    return [("report", fields)]
