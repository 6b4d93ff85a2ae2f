"""Corpus BLEU from sums: the same number as the metric gives for the whole corpus at once."""

import json
from pathlib import Path

import pytest

from eval.aggregates import CorpusBleu
from eval.metrics import get_metric

CORPUS = next(
    case
    for case in json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "bleu4.json").read_text())
    if isinstance(case["prediction"], list) and case["kwargs"]["smooth_method"] == "exp"
)
ROWS = [
    {"id": i, "output": p, "answers": r} for i, (p, r) in enumerate(zip(CORPUS["prediction"], CORPUS["references"]))
]


def test_sacrebleu():
    assert 100 * CorpusBleu().value(ROWS) == pytest.approx(CORPUS["expected"], abs=1e-9)


@pytest.mark.parametrize("package", ["sacrebleu", "pycocoevalcap"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_same_as_the_metric_over_the_corpus(package, order):
    whole = get_metric(f"bleu{order}")(CORPUS["prediction"], CORPUS["references"], package=package, level="corpus")
    scale = 100 if package == "sacrebleu" else 1
    assert scale * CorpusBleu(order, package).value(ROWS) == pytest.approx(whole, abs=1e-9)


def test_a_failed_sample_costs_brevity_and_one_without_gold_nothing():
    rows = [{"id": 1, "output": "a b c d e", "answers": ["a b c d e"]}]
    assert CorpusBleu().value(rows) == pytest.approx(1.0)
    assert CorpusBleu().value([*rows, {"id": 2, "output": "x", "answers": []}]) == pytest.approx(1.0)
    failed = {"id": 3, "output": "a b c d e", "answers": ["a b c d e"], "error": "out of memory"}
    assert CorpusBleu().value([*rows, failed]) == pytest.approx(0.36787944117)


def test_illegal_options():
    with pytest.raises(ValueError, match="package must be"):
        CorpusBleu(package="nltk")
    with pytest.raises(ValueError, match="'add-k' is for single sentences"):
        CorpusBleu(smooth_method="add-k")
