"""Metrics: parity with the public implementations, and the rules they state about themselves."""

import json
from pathlib import Path

import pytest

from eval.metrics import get_metric, metrics
from eval.metrics.anls import levenshtein
from eval.metrics.expert_trigger import INVALID, called_expert
from eval.metrics.registry import register_metric
from eval.registry import UnknownNameError

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "metrics"
CASES = [
    (name, case)
    for name in ("anls", "relaxed_accuracy")
    for case in json.loads((FIXTURES / f"{name}.json").read_text())
]


@pytest.mark.parametrize("name, case", CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])
def test_parity_with_public_implementations(name, case):
    score = get_metric(name)(case["prediction"], case["references"], **case["kwargs"])
    assert score == pytest.approx(case["expected"], abs=1e-8)


NOT_A_SCORE = ("mcq_option_extraction",)  # returns the option's letter
NETWORKS = ("radgraph_f1", "chexbert_f1", "green")  # need a package: tests/eval/metrics/test_radeval.py


@pytest.mark.parametrize("name", [name for name in metrics.names() if name not in NOT_A_SCORE + NETWORKS])
def test_every_metric_obeys_the_contract(name):
    metric = get_metric(name)
    for prediction in ("", "42", "a long answer", "<LESIONS()>"):
        for references in ([], ["42"], ["", "left"], 42, [True, 3]):
            assert 0.0 <= metric(prediction, references) <= 1.0
    assert metric("42", []) == (1.0 if name == "expert_trigger" else 0.0)


def test_unknown_metric_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="unknown metric 'bleurgh' .*known: .*anls.*relaxed_accuracy"):
        get_metric("bleurgh")


def test_a_name_can_be_taken_once():
    with pytest.raises(ValueError, match="already registered"):
        register_metric("anls")(len)


def test_exact_match_forgives_outer_blanks_only():
    exact = get_metric("exact_match")
    assert exact(" 42\n", ["42"]) == 1.0
    assert exact("42.", ["42"]) == exact("Left", ["left"]) == exact("4 2", ["42"]) == 0.0


@pytest.mark.parametrize("prediction", ["left", "Left.", " the LEFT", "(left)", '"left"'])
def test_accuracy_normalises_short_answers(prediction):
    assert get_metric("accuracy")(prediction, ["left"]) == 1.0


@pytest.mark.parametrize("prediction", ["leftmost", "not left", "right or left", ""])
def test_accuracy_does_not_guess(prediction):
    assert get_metric("accuracy")(prediction, ["left"]) == 0.0


def test_accuracy_on_options():
    accuracy = get_metric("accuracy")
    assert accuracy("(A)", ["A"]) == accuracy("a.", ["A"]) == 1.0
    assert accuracy("B", ["A"]) == 0.0


def test_levenshtein():
    assert [levenshtein(a, b) for a, b in (("", ""), ("", "abc"), ("kitten", "sitting"), ("ab", "ba"))] == [0, 3, 3, 2]


def test_trigger_decision():
    decide = get_metric("expert_trigger")
    assert decide("<LESIONS()>", ["LESIONS"]) == 1.0
    assert decide("left", ["LESIONS"]) == decide("<LESIONS()>", []) == decide("<OTHER()>", ["LESIONS"]) == 0.0
    assert decide("left", []) == 1.0
    assert called_expert("<LESIONS(") == called_expert("<LESIONS()><LESIONS()>") == INVALID
