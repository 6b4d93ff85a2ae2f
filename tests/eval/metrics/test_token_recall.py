"""Token recall, precision, F1: parity with LLaVA-Med and the quirks that make its figures what they are."""

import json
from pathlib import Path

import pytest

from eval.metrics import get_metric
from eval.metrics.token_recall import normalise_llava_med

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "token_recall.json").read_text())
recall, precision, f1 = (get_metric(f"token_{name}") for name in ("recall", "precision", "f1"))
LLAVA_MED = {"normalizer": "llava_med_v1", "counting": "candidate counts for overlap"}


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_parity(case):
    texts = case["prediction"], case["references"]
    assert recall(*texts, **case["kwargs"]) == pytest.approx(case["expected"], abs=1e-9)
    assert precision(*texts, **case["kwargs"]) == pytest.approx(case["expected_precision"], abs=1e-9)
    assert f1(*texts, **case["kwargs"]) == pytest.approx(case["expected_f1"], abs=1e-9)
    exactmatch = precision(*texts, counting="llava_med exactmatch")
    assert exactmatch == pytest.approx(case["expected_llava_med_exactmatch"], abs=1e-9)


@pytest.mark.parametrize(
    "text, normal",
    [
        ("The left-lung", "left lung"),
        ("left -lung", "left lung"),
        ("left-lung - right-lung", "leftlung rightlung"),  # one dash beside a blank, and every dash vanishes
        ("1,000 cells/ml", "1000 cellsml"),  # a comma in a number does the same to all punctuation
        ("2.5 cm. isnt", "2.5 cm isn't"),
        ("None of ten", "0 of 10"),
        ("somebody'd", "somebodyd"),
        ("." * 33 + " x", ". x"),  # 32 full stops, no more
    ],
)
def test_normal_form(text, normal):
    assert normalise_llava_med(text) == normal


def test_repetition_earns_nothing_when_counted_as_multisets():
    assert (precision("lung lung lung", ["lung"]), recall("lung", ["lung lung"])) == (1.0, 1.0)
    assert precision("lung lung lung", ["lung"], counting="multiset") == pytest.approx(1 / 3)
    assert f1("lung lung lung", ["lung"], counting="multiset") == pytest.approx(0.5)
    assert recall("lung", ["lung lung"], counting="multiset") == 0.5


def test_best_reference_and_empty_texts():
    assert recall("left lung", ["heart", "left lung", "the left lung base"]) == 1.0
    for metric in (recall, precision, f1):
        assert metric("left lung", []) == metric("", ["lung"]) == metric("lung", [""]) == metric("the", ["a"]) == 0.0
        assert metric(2, [2]) == metric("two", 2) == 1.0
    assert precision("", ["lung"], counting="llava_med exactmatch") == 0.0


def test_unknown_options_list_the_known_ones():
    with pytest.raises(ValueError, match="unknown normalizer 'squad'; known: llava_med_v1, none"):
        recall("a", ["b"], normalizer="squad")
    with pytest.raises(ValueError, match="unknown counting 'twice'; known: .*multiset"):
        f1("a", ["b"], counting="twice")
