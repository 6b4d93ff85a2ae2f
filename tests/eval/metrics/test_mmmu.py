"""MMMU's combined metric, and multiple-choice accuracy under each public rule by name."""

import pytest

from eval.metrics import get_metric, metrics
from eval.metrics.mcq import extractors
from eval.scoring import score

OPTIONS = ["a red car", "a truck", "a bus"]


def test_the_type_of_the_question_decides():
    mmmu = get_metric("mmmu")
    assert mmmu("B) a truck", ["B"], options=OPTIONS) == 1.0 and mmmu("C", ["B"], options=OPTIONS) == 0.0
    assert mmmu("So x = 3.14159", ["3.14"], question_type="open") == 1.0
    assert mmmu("B) a truck", ["truck"], options=OPTIONS, question_type="open") == 1.0
    assert mmmu("B) a truck", ["truck"], options=OPTIONS) == 0.0, "neither a letter nor a whole option"
    with pytest.raises(ValueError, match="unknown question_type 'essay'; known: multiple-choice, open"):
        mmmu("B", ["B"], question_type="essay")


def test_the_official_rule_reads_other_letters_and_never_guesses():
    official = get_metric("mmmu_official")
    assert official("(B)", ["B"], options=OPTIONS) == 1.0
    assert official("B) a truck", ["B"], options=OPTIONS) == 0.0, "no form of that rule"
    assert [official("~~", [letter], options=OPTIONS) for letter in "ABC"] == [0.0, 0.0, 0.0]


def test_every_rule_is_a_metric():
    assert {f"mcq_accuracy.{rule}" for rule in extractors} <= set(metrics)
    scoring = {"options": OPTIONS, "answer_format": "ignored"}
    assert score("mcq_accuracy.lmms_eval.ai2d_filter", "The answer is B", ["B"], scoring) == 0.0
    assert score("mcq_accuracy.vlmevalkit.can_infer", "The answer is B", ["B"], scoring) == 1.0
    assert score("mcq_accuracy.radio_vlm", "the answer: b", ["B"], scoring) == 1.0
