"""Option letters: parity of every public rule, the cases where they disagree, and what our own rule promises."""

import json
import time
from pathlib import Path

import pytest

from eval.metrics import get_metric
from eval.metrics.mcq import extractors
from eval.metrics.mcq_option_extraction import extraction_failed

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "mcq_option_extraction.json").read_text())
OPTIONS = ["a red car", "a blue truck", "a green bicycle", "a yellow bus"]
extract = get_metric("mcq_option_extraction")


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_parity(case):
    expected = "" if case["expected"] == "<RANDOM>" else case["expected"]
    assert extract(case["prediction"], case["references"], **case["kwargs"]) == expected


RULES = (
    "lmms_eval.extract_mcq_answer",
    "mmmu.parse_multi_choice_response",
    "vlmevalkit.extract_characters_regex",
    "vlmevalkit.can_infer",
    "lmms_eval.longvideobench",
    "lmms_eval.egoschema",
)


@pytest.mark.parametrize(
    "response, letters",
    [
        ("D)", "D DDD "),
        ("**D**", "D DDD "),
        ("The correct answer is **B**. Here's why: A is wrong.", "AABBBA"),
        ("The best option is D because A and B are blue.", "BBD DD"),
        ("D. A book", "DAD DD"),
        ("a blue truck", "   B  "),
        ("b", "      "),
        ("Cannot determine the answer", "C CZC "),
        ("", "      "),
        ("(A) is wrong, (C) is right", "CCA AA"),
        ("Based on the video, C.", "CCBCBC"),
        ("The best option is E", "    E "),
    ],
)
def test_public_rules_disagree(response, letters):
    assert "".join(extract(response, OPTIONS, extractor=rule) or " " for rule in RULES) == letters


@pytest.mark.parametrize(
    "response, letter",
    [
        # a lone letter, in any case and dress
        ("b", "B"),
        ("(b)", "B"),
        ("**D**", "D"),
        ("C.\n", "C"),
        ("a", "A"),
        # what the response calls its answer, the last time it does
        ("answer: d", "D"),
        ("**Answer:** B", "B"),
        ("Let me think. A is red. B is blue. So the answer is C.", "C"),
        ("The answer is A. No, wait: the answer is D.", "D"),
        ("The correct answer is **B**. Here's why: A is wrong.", "B"),
        ("<answer>B</answer>", "B"),
        ("so \\boxed{\\text{C}}", "C"),
        ("Answer: 'C'", "C"),
        ("Answer: B's is the biggest", ""),
        ("The answer is A because it is red", "A"),
        ("The answer is A blue truck", "B"),
        ("The answer is A. blue truck", "A"),
        ("A) is tempting, but the correct choice would be (c)", "C"),
        # a leading letter
        ("D. A book", "D"),
        ("b) the truck", "B"),
        ("C\nBecause it is green", "C"),
        ("C because it is green", "C"),
        ("Option C", "C"),
        ("B is correct", "B"),
        # the text of one option
        ("a blue truck", "B"),
        ("A blue truck.", "B"),
        ("I think it is a blue   TRUCK in the picture", "B"),
        ("The answer is a yellow bus", "D"),
        # nothing
        ("", ""),
        ("   ", ""),
        ("E", ""),
        ("AB", ""),
        ("A or B", ""),
        ("A, B", ""),
        ("The answer is B or C", ""),
        ("The answer is not B", ""),
        ("(A) is wrong, (C) is right", ""),
        ("A truck", ""),
        ("a red car and a blue truck", ""),
        ("None of the above", ""),
        ("Cannot determine the answer", ""),
    ],
)
def test_our_rule(response, letter):
    assert extract(response, OPTIONS) == letter
    assert extraction_failed(response, OPTIONS) == (letter == "")


@pytest.mark.parametrize("filler", ["*", " ", "(", ")", "answer: ", "answer is A. ", "answer is a ", "A, ", "\n", "A."])
def test_endless_responses_cost_little(filler):
    for response in (filler * 5000, f"A{filler * 5000}x", f"answer:{filler * 5000}x"):
        started = time.perf_counter()
        extract(response, OPTIONS)
        assert time.perf_counter() - started < 5


def test_option_texts():
    nested = ["red", "dark red", "blue"]
    assert [extract(text, nested) for text in ("dark red", "it is red", "red and dark red", "reddish")] == [
        "B",
        "A",
        "",
        "",
    ]
    same = ["Red", "red ", "blue"]
    assert [extract(text, same) for text in ("red", "blue", "b")] == ["", "C", "B"]
    assert extract("3", [13, 3, True]) == "B"
    assert extract("nothing", ["", "x"]) == ""


def test_letters_of_the_question():
    assert extract("2", ["x", "y"], choices=["1", "2"]) == "2"
    assert extract("(iv)", list("wxyz"), choices=["i", "ii", "iii", "iv"]) == "iv"
    assert extract("answer: ii", list("wxyz"), choices=["i", "ii", "iii", "iv"]) == "ii"
    assert extract("C", ["x", "y"]) == ""
    assert extract("H", []) == extract("H", None) == "H"  # no options known: A-H


@pytest.mark.parametrize("rule", extractors.names())
def test_every_rule_survives_odd_input(rule):
    for response in ("", " ", "...", "(", "A", "\x00", "ß" * 50, "İ answer is İ B"):
        for options in ([], None, "lone", [1, True, None], OPTIONS):
            found = extract(response, options, extractor=rule)
            assert isinstance(found, str)
            assert found == extract(response, options, extractor=rule)  # nothing random
    assert extraction_failed("", OPTIONS, extractor=rule)


def test_failures_by_rule():
    assert extraction_failed("Cannot determine the answer", OPTIONS, extractor="vlmevalkit.can_infer")  # "Z"
    assert extraction_failed("The answer is B", OPTIONS, extractor="lmms_eval.ai2d_filter")  # the whole response
    assert not extraction_failed("(C)", OPTIONS, extractor="lmms_eval.ai2d_filter")
    assert not extraction_failed("The answer is B", OPTIONS)


def test_unknown_rule_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown extractor 'gpt'; known: lmms_eval.ai2d_filter, .*radio_vlm"):
        extract("A", OPTIONS, extractor="gpt")
