"""OCRBench: parity, the published examples, and full-width letters, which one harness folds and the other does not."""

import json
from pathlib import Path

import pytest

from eval.metrics import get_metric

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "ocrbench.json").read_text())
ocrbench = get_metric("ocrbench")


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_parity(case):
    assert ocrbench(case["prediction"], case["references"], **case["kwargs"]) == case["expected"]


@pytest.mark.parametrize(
    "prediction, gold, score",
    [
        ("112.00", "12.00", 1.0),
        ("1000", "1,000", 0.0),
        ("c e n t r e", "CENTRE", 0.0),
        ("x", "", 1.0),
        ("a b", "a\nb", 1.0),
    ],
)
def test_text_examples(prediction, gold, score):
    assert ocrbench(prediction, [gold]) == ocrbench(prediction, gold, rule="vlmevalkit") == score


def test_formulas_keep_case_and_lose_blanks():
    spaced = "\\frac { 1 }\n{ 2 }"
    assert ocrbench(spaced, ["\\frac{1}{2}"], dataset="HME100k") == 1.0
    assert ocrbench(spaced, ["\\frac{1}{2}"], is_formula=True) == 1.0
    assert ocrbench(spaced, ["\\frac{1}{2}"], dataset="docVQA") == 0.0
    assert ocrbench(spaced, ["\\frac{1}{2}"], dataset="HME100k", is_formula=False) == 0.0
    assert ocrbench("X", ["x"], is_formula=True) == 0.0
    assert ocrbench("x\ty", ["xy"], is_formula=True) == 0.0  # a tab is no blank


def test_full_width_letters():
    assert ocrbench("ＡＢＣ　１２", ["abc 12"]) == 1.0
    assert ocrbench("ＡＢＣ　１２", ["abc 12"], rule="vlmevalkit") == 0.0
    assert ocrbench("Ａ", ["A"], is_formula=True) == 0.0


def test_odd_references():
    assert ocrbench("x", []) == ocrbench("", None) == 0.0
    assert ocrbench("total 12", 12) == ocrbench("it is True", [True]) == 1.0
    with pytest.raises(ValueError, match="known: lmms_eval, vlmevalkit"):
        ocrbench("x", ["x"], rule="v2")
