"""VQA accuracy: parity of score and normalised text under both rules, and what few annotators do to it."""

import json
from pathlib import Path

import pytest

from eval.metrics import get_metric
from eval.metrics.evalai_text import CONTRACTIONS, normalise_vqa_answer

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "vqa_accuracy.json").read_text())
vqa_accuracy = get_metric("vqa_accuracy")


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_parity(case):
    texts = case["prediction"], case["references"]
    assert vqa_accuracy(*texts, **case["kwargs"]) == pytest.approx(case["expected"], abs=1e-9)
    score = vqa_accuracy(*texts, rule="vlmevalkit", **case["kwargs"])
    assert score == pytest.approx(case["expected_vlmevalkit"], abs=1e-9)
    assert normalise_vqa_answer(texts[0]) == case["normalized_prediction"]
    assert normalise_vqa_answer(texts[0], "vlmevalkit") == case["normalized_prediction_vlmevalkit"]


@pytest.mark.parametrize(
    "text, lmms_eval, vlmevalkit",
    [
        ("The Nokia, two.", "nokia 2", "nokia 2"),
        ("none", "0", "0"),
        ("1,000", "1000", "1000"),
        ("5.", "5", "5."),  # VLMEvalKit keeps a period behind a digit
        ("5.5", "5.5", "5.5"),
        ("what's up", "what 's up", "what's up"),  # lmms-eval splits the genitive
        ("dont", "don't", "don't"),
        ("couldnt've", "couldn't've", "couldn't've"),
        ("coca-cola", "coca cola", "coca cola"),
        ("coca - cola, x-y", "coca cola xy", "coca cola xy"),  # it touches a blank once: gone everywhere
        ("1,000 a-b", "1000 b", "1000 ab"),  # no comma is left for lmms-eval, so the hyphen becomes a blank
        ("x" + "." * 40, "x" + "." * 8, "x" + "." * 8),  # only 32 periods are ever removed
    ],
)
def test_normalisation(text, lmms_eval, vlmevalkit):
    assert normalise_vqa_answer(text) == lmms_eval
    assert normalise_vqa_answer(text, "vlmevalkit") == vlmevalkit


def test_contractions_are_the_published_ones():
    # 120 published, less four with capitals (never reached) and two that map to themselves.
    assert len(CONTRACTIONS) == 114
    assert all(wrong.replace("'", "") == right.replace("'", "") for wrong, right in CONTRACTIONS.items())


def test_score_by_number_of_annotators_that_agree():
    scores = [vqa_accuracy("x", ["x"] * k + ["y"] * (10 - k), num_annotators=10) for k in range(6)]
    assert scores == pytest.approx([0.0, 0.3, 0.6, 0.9, 1.0, 1.0])
    assert [vqa_accuracy("x", ["x"] * n) for n in (1, 2, 3, 4)] == pytest.approx([0.0, 1 / 3, 2 / 3, 1.0])


def test_odd_references():
    assert vqa_accuracy("x", []) == vqa_accuracy("", None) == vqa_accuracy("yes", "yes") == 0.0
    assert vqa_accuracy("3", [3, 3, 3, 3]) == vqa_accuracy("true", [True] * 4) == 1.0
    with pytest.raises(ValueError, match="unknown rule 'evalai' of metric 'vqa_accuracy'; known: lmms_eval"):
        vqa_accuracy("x", ["x"], rule="evalai")
