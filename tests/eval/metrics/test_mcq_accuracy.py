"""Multiple-choice accuracy: gold letters and gold texts, the rule decides, and what cannot be read is wrong."""

import pytest

from eval.metrics import get_metric

OPTIONS = ["a red car", "a blue truck", "a green bicycle", "a yellow bus"]
accuracy = get_metric("mcq_accuracy")


@pytest.mark.parametrize("gold", ["B", "b", "(B)", ["B", "a blue truck"], "a blue truck", ["A  Blue Truck"]])
def test_gold_is_a_letter_or_a_text(gold):
    assert accuracy("The answer is B", gold, options=OPTIONS) == accuracy("a blue truck", gold, options=OPTIONS) == 1.0
    assert accuracy("C", gold, options=OPTIONS) == accuracy("I do not know", gold, options=OPTIONS) == 0.0


def test_a_reference_that_is_both_is_the_letter():
    assert accuracy("B", "B", options=["B", "A"]) == 1.0
    assert accuracy("A", "B", options=["B", "A"]) == 0.0


def test_without_options():
    assert accuracy("(c)", ["C"]) == 1.0
    assert accuracy("c", ["blue"]) == accuracy("", ["C"]) == accuracy("", []) == accuracy("A", []) == 0.0


def test_own_letters():
    assert accuracy("2", [2], options=["x", "y"], choices=[1, 2]) == 1.0
    assert accuracy("1", ["y"], options=["x", "y"], choices=["1", "2"]) == 0.0


def test_the_rule_decides():
    response = "The correct answer is **B**. Here's why: A is wrong."
    assert accuracy(response, "B", options=OPTIONS) == 1.0
    assert accuracy(response, "B", options=OPTIONS, extractor="lmms_eval.extract_mcq_answer") == 0.0
    assert accuracy(response, "A", options=OPTIONS, extractor="lmms_eval.extract_mcq_answer") == 1.0


def test_ai2d_compares_the_filtered_response_without_case_and_punctuation():
    ai2d = {"options": OPTIONS, "extractor": "lmms_eval.ai2d_filter"}
    assert [accuracy(text, "B", **ai2d) for text in ("B. a truck", "(b)", "The answer is B", "")] == [1, 1, 0, 0]


def test_refusals_and_random_choices_are_wrong():
    assert accuracy("Cannot determine the answer", "C", options=OPTIONS, extractor="vlmevalkit.can_infer") == 0.0
    for gold in "ABCD":
        assert accuracy("D)", gold, options=OPTIONS, extractor="mmmu.parse_multi_choice_response") == 0.0


def test_options_with_the_same_text():
    same = ["red", "Red", "blue"]
    assert accuracy("red", "red", options=same) == 0.0  # the response names two options
    assert accuracy("B", "red", options=same) == 1.0
    assert accuracy("C", "red", options=same) == 0.0


def test_unknown_rule_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown extractor"):
        accuracy("A", "A", options=OPTIONS, extractor="gpt")
