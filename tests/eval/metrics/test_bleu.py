"""BLEU: parity with sacrebleu on its own scale, the COCO rule worked by hand, and the score in [0, 1] a runner sees."""

import builtins
import json
import math
from pathlib import Path

import pytest

from eval.metrics import bleu as module
from eval.metrics import get_metric

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "bleu4.json").read_text())
bleu4 = get_metric("bleu4")
REFERENCE = "the heart is normal in size there is a small left pleural effusion"


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_parity(case):
    texts = case["prediction"], case["references"]
    assert bleu4(*texts, **case["kwargs"]) == pytest.approx(case["expected"], abs=1e-9)
    if "bp" in case:
        assert bleu4(*texts, **case["kwargs"], value="bp") == pytest.approx(case["bp"], abs=1e-9)
        assert bleu4(*texts, **case["kwargs"], value="precisions") == pytest.approx(case["precisions"], abs=1e-9)


def test_without_a_level_the_score_is_a_fraction():
    assert bleu4("normal", ["normal"]) == 1.0
    assert bleu4("a b c d", ["d c b a"]) == pytest.approx(bleu4("a b c d", ["d c b a"], level="sentence") / 100)
    assert bleu4("", ["normal"]) == bleu4("normal", []) == bleu4("", []) == 0.0


def test_coco_rule():
    right = REFERENCE.replace("left", "right")
    assert bleu4(right, [REFERENCE], package="pycocoevalcap") == pytest.approx((12 * 10 * 8 * 7 / 17160) ** 0.25)
    short = bleu4("the heart is normal in size", [REFERENCE], package="pycocoevalcap")
    assert short == pytest.approx(math.exp(1 - 13 / 6), abs=1e-8)
    orders = [get_metric(f"bleu{n}")(right, [REFERENCE], package="pycocoevalcap") for n in (1, 2, 3)]
    assert orders == pytest.approx([12 / 13, (12 * 10 / 156) ** (1 / 2), (12 * 10 * 8 / 1716) ** (1 / 3)])


def test_coco_rule_takes_the_closest_length_and_clips_by_the_best_reference():
    statistics = module.coco_statistics("the the cat", ["the cat", "a b c d e", "the the"], order=2)
    assert statistics.tolist() == [3, 2, 3, 2, 3, 2]
    assert module.coco_statistics("", ["a"], order=1).tolist() == [0, 1, 0, 0]
    assert bleu4("", ["a b"], package="pycocoevalcap") == 0.0


def test_corpora_sum_their_counts():
    texts, golds = ["a b c d e", "x"], [["a b c d e"], ["x y z", "x y"]]
    coco = bleu4(texts, golds, package="pycocoevalcap")
    assert coco == pytest.approx(math.exp(1 - 7 / 6), abs=1e-8)
    assert bleu4(texts, golds, level="corpus") == pytest.approx(100 * math.exp(1 - 7 / 6))
    assert bleu4([], []) == 0.0


def test_illegal_options():
    with pytest.raises(ValueError, match="package must be 'sacrebleu' or 'pycocoevalcap'"):
        bleu4("a", ["a"], package="nltk")
    with pytest.raises(ValueError, match="level must be"):
        bleu4("a", ["a"], level="document")
    with pytest.raises(ValueError, match="2 predictions, but references for 1"):
        bleu4(["a", "b"], [["a"]])


def test_missing_library_is_said_in_one_line(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("sacrebleu"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    module.sacrebleu_scorer.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'radio-vlm\[eval\]'"):
        bleu4("a", ["a"])
    assert bleu4("a b c d", ["a b c d"], package="pycocoevalcap") == pytest.approx(1.0)
