"""Relaxed accuracy: parity, the published examples, and the one thing VLMEvalKit does otherwise."""

import json
from pathlib import Path

import pytest

from eval.metrics import get_metric

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "relaxed_accuracy.json").read_text())
relaxed = get_metric("relaxed_accuracy")


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_parity(case):
    texts = case["prediction"], case["references"]
    assert relaxed(*texts, **case["kwargs"]) == case["expected"]
    if "expected_vlmevalkit" in case:
        assert relaxed(*texts, rule="vlmevalkit", **case["kwargs"]) == case["expected_vlmevalkit"]


@pytest.mark.parametrize(
    "prediction, gold, score",
    [
        ("14.7", "14", 1.0),
        ("14.8", "14", 0.0),
        ("50%", "50", 0.0),
        ("0.52", "50%", 1.0),
        ("1,234", "1234", 0.0),
        ("0.0", "0", 0.0),
        ("0", "0", 1.0),
        ("1925", "2020", 1.0),
        ("yes.", "Yes", 0.0),
        ("5%%", "5%", 1.0),
        ("inf", "inf", 0.0),  # both are numbers, their difference is not
        ("nan", "nan", 0.0),
        ("inf", "5", 0.0),
        ("", "5", 0.0),
        ("", "", 1.0),
    ],
)
def test_examples(prediction, gold, score):
    assert relaxed(prediction, [gold]) == relaxed(prediction, gold) == score


def test_rules_differ_in_blanks_around_words_only():
    assert [relaxed(" Yes", ["Yes"], rule=rule) for rule in ("lmms_eval", "vlmevalkit")] == [0.0, 1.0]
    assert [relaxed("Yes", [" Yes"], rule=rule) for rule in ("lmms_eval", "vlmevalkit")] == [0.0, 0.0]
    assert [relaxed(" 14 ", ["14"], rule=rule) for rule in ("lmms_eval", "vlmevalkit")] == [1.0, 1.0]


def test_any_reference_will_do_and_none_is_zero():
    assert relaxed("7", ["5", 7]) == relaxed("true", True) == 1.0
    assert relaxed("7", []) == relaxed("", None) == 0.0
    with pytest.raises(ValueError, match="known: lmms_eval, vlmevalkit"):
        relaxed("7", ["7"], rule="lmms")
