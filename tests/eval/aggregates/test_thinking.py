"""What a model thinks before it answers is no part of the answer, in figures that read outputs as in metrics."""

import pytest

from eval.aggregates import AnswerableF1, CorpusBleu, InvalidRate, LabelF1, UnreadableRate

THOUGHT = "<think>Not answerable? No, mass, a lesion; option B maybe.</think>"


def row(output, gold, **more):
    return {"id": "1", "output": output, "answers": [gold], "scores": {"mmlongbench_doc": 1.0}, **more}


@pytest.mark.parametrize(
    "figure, output, gold, more",
    [
        (AnswerableF1(), "Not answerable", "12", {}),  # claims nothing
        (CorpusBleu(4), "the lungs are clear on both sides", "the lungs are clear on both sides", {}),
        (CorpusBleu(4, "pycocoevalcap"), "no focal consolidation is seen", "no focal consolidation is seen", {}),
        (LabelF1("macro"), "Edema", "Edema", {"scoring": {"labels": ["Edema", "Mass"]}}),
        (LabelF1("micro", by="kind"), "Yes", "yes", {"kind": "edema"}),
        (InvalidRate(), "Edema", "Edema", {"scoring": {"labels": ["Edema", "Mass"]}}),
        (UnreadableRate(), "A", "A", {"scoring": {"options": ["a cat", "a dog"]}}),
    ],
)
def test_figures_with_and_without_thinking(figure, output, gold, more):
    plain = figure.value([row(output, gold, **more)])
    assert figure.value([row(f"{THOUGHT}\n{output}", gold, **more)]) == plain
    nothing = ("invalid_rate", "unreadable_rate", "answerable_f1")
    assert plain == pytest.approx(0.0 if figure.name in nothing else 1.0)
    # a thought that never ends is no answer
    assert figure.value([row(f"<think>{output}", gold, **more)]) != plain or isinstance(figure, AnswerableF1)
