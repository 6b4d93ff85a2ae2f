"""Closed medical answers: parity with the public rules, and what each rule forgives."""

import json
from pathlib import Path

import pytest

from eval.metrics import get_metric
from eval.metrics.exact_match_closed import RULES, first_yes_no, normalise_slake

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "exact_match_closed.json").read_text())
closed = get_metric("exact_match_closed")


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_parity(case):
    prediction, references = case["prediction"], case["references"]
    assert closed(prediction, references, **case["kwargs"]) == case["expected"]
    assert normalise_slake(prediction) == case["normalized_prediction"]
    assert closed(prediction, references, rule="strict") == closed(prediction, references) == case["expected_strict"]
    assert closed(prediction, references, rule="lmms_exact_match") == case["expected_lmms_exact_match_ic_ip"]


@pytest.mark.parametrize(
    "text, normal",
    [
        ("没有。", "no"),
        ("  是的！", "yes"),
        ("正常", "yes"),  # the quirk: "normal" is a yes
        ("（轻度）异常", "no"),
        ("右肺，上叶", "右肺 上叶"),
        ("X－Ray", "xray"),
        (None, ""),
        (3, "3"),
        (True, "yes"),
    ],
)
def test_slake_normal_form(text, normal):
    assert normalise_slake(text) == normal


@pytest.mark.parametrize(
    "prediction, gold, score",
    [
        ("Yes, there is.", "yes", 1.0),
        ("There is no effusion, yes.", "yes", 0.0),  # the first one counts
        ("There is no effusion, yes.", "No", 1.0),
        ("The heart is normal.", "no", 0.0),  # LLaVA-Med's own code finds "no" in "normal"
        ("I do not know", "no", 0.0),
        ("", "yes", 0.0),
        ("maybe", "no", 0.0),  # counted as wrong, where LLaVA-Med's first version drops it
        ("Left lung.", "left lung", 1.0),
        ("the left lung", "left lung", 0.0),
    ],
)
def test_llava_med(prediction, gold, score):
    assert closed(prediction, [gold], rule="llava_med") == score


def test_vila_m3_strips_except_for_pathvqa():
    assert closed(" Yes\n", ["yes"], rule="vila_m3") == 1.0
    assert closed(" Yes\n", ["yes"], rule="vila_m3", dataset="pathvqa") == 0.0
    assert closed("Yes", ["yes"], rule="vila_m3", dataset="pathvqa") == 1.0


@pytest.mark.parametrize("rule", [*RULES, "llava_med"])
def test_answers_that_are_not_clean_strings(rule):
    assert closed(4, [4], rule=rule) == closed("4", [4], rule=rule) == closed("4", 4, rule=rule) == 1.0
    assert closed("", ["yes"], rule=rule) == closed("yes", [], rule=rule) == 0.0
    assert closed("CLOSED", ["CLOSED "], rule=rule) == (0.0 if rule == "lmms_exact_match" else 1.0)


def test_rule_and_normalizer_are_one_option():
    assert closed("true", ["yes"], normalizer="slake") == closed("true", ["yes"], rule="slake", normalizer="slake") == 1
    with pytest.raises(ValueError, match="two names of one option"):
        closed("a", ["a"], rule="strict", normalizer="slake")
    with pytest.raises(ValueError, match="unknown rule 'fuzzy'; known: llava_med, .*slake"):
        closed("a", ["a"], rule="fuzzy")


def test_yes_and_no_are_words():
    assert [first_yes_no(text) for text in ("NO.", "know", "yes/no", "eyes", 1)] == ["no", None, "yes", None, None]
