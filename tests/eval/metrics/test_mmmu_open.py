"""MMMU open answers: parity of score and of the candidates that the public parser finds, and its quirks."""

import json
from pathlib import Path

import pytest

from eval.metrics import get_metric
from eval.metrics.mmmu_open import candidates, numbers_in

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "mmmu_open.json").read_text())
mmmu_open = get_metric("mmmu_open")


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_parity(case):
    assert mmmu_open(case["prediction"], case["references"], **case["kwargs"]) == case["expected"]
    assert sorted(map(str, candidates(case["prediction"]))) == sorted(case["kwargs"]["parsed"])


@pytest.mark.parametrize(
    "prediction, gold, score",
    [
        ("So x = 3.14159", "3.14", 1.0),
        ("about 75%", "75%", 1.0),
        ("75", "75%", 0.0),
        ("10000", "$10,000", 0.0),
        ("10,000", "10000", 1.0),
        ("It costs $10,000.", "$10,000", 1.0),
        ("a catalyst", "cat", 1.0),  # contained
        ("The result is a", "a", 1.0),
        ("The result is abc", "b", 0.0),  # a lone letter must stand at an edge of a word
        ("x", "", 1.0),
        ("7", "", 0.0),
        ("inf", "inf", 1.0),
        ("nan", "nan", 0.0),
    ],
)
def test_examples(prediction, gold, score):
    assert mmmu_open(prediction, [gold]) == mmmu_open(prediction, gold) == score


@pytest.mark.parametrize(
    "response, found",
    [
        ("the answer is red\nso it is blue", {"red", "blue"}),
        ("y = 2\nx = 3", {3.0}),  # the equals sign counts in the last line; "y = 2" announces nothing
        ("x = 3\nthe end", {"x = 3\nthe end", 3.0}),  # nothing announced: the whole response
        ("the answer is .", {"is"}),  # an empty tail gives way to a longer one
        ("is it? answer : ", {"is it? answer :"}),  # bare punctuation is no tail
        ("", {""}),
    ],
)
def test_candidates(response, found):
    assert candidates(response) == found


def test_numbers():
    # The last group of a long number and a bare exponent base are found once more, as the public patterns do.
    found = ["1,234,567", "6.02e23", "567", "6", "-3.5", ".5"]
    assert numbers_in("1,234,567 or 6.02e23, -3.5 and .5") == found


def test_parsed_does_not_decide():
    assert mmmu_open("red", ["blue"], parsed=["blue"]) == 0.0
    assert mmmu_open("blue", ["blue"], parsed=["red"]) == 1.0


def test_odd_references():
    assert mmmu_open("x", []) == mmmu_open("", None) == 0.0
    assert mmmu_open("it is 3", 3) == mmmu_open("it is true", [True]) == 1.0
