"""ANLS: parity with lmms-eval and VLMEvalKit, the published examples, and what the raw lengths do."""

import json
from pathlib import Path

import pytest

from eval.metrics import get_metric

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "anls.json").read_text())
anls = get_metric("anls")


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_parity(case):
    texts = case["prediction"], case["references"]
    assert anls(*texts, **case["kwargs"]) == pytest.approx(case["expected"], abs=1e-9)
    if "expected_vlmevalkit" in case:
        score = anls(*texts, rule="vlmevalkit", **case["kwargs"])
        assert score == pytest.approx(case["expected_vlmevalkit"], abs=1e-9)


@pytest.mark.parametrize(
    "prediction, gold, score",
    [
        ("12,500", "12500", 5 / 6),
        ("0.28", "0.28%", 0.8),
        ("28%", "0.28", 0.0),
        ("The answer is 42", "42", 0.0),
        ("4", "42", 0.5),  # on the threshold: kept
        ("", "anything", 0.0),
        ("   ", "a", 2 / 3),  # blanks lengthen the text, not the distance
        ("", "", 1.0),
        ("straße", "strasse", 5 / 7),  # 6 letters, but STRASSE has 7
        ("xß", "xyz", 0.0),
    ],
)
def test_examples(prediction, gold, score):
    assert anls(prediction, [gold]) == anls(prediction, gold) == pytest.approx(score)


def test_the_best_reference_counts_and_none_is_zero():
    assert anls("ITC", ["ITC Limited", "ITC"]) == 1.0
    assert anls("ITC", ["ITC Limited"]) == 0.0
    assert anls("x", []) == anls("", []) == anls("x", None) == anls("None", [None]) == 0.0
    assert anls("3", 3) == anls("true", [True]) == 1.0


def test_unknown_rule_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown rule 'x' of metric 'anls'; known: lmms_eval, vlmevalkit"):
        anls("a", ["a"], rule="x")
