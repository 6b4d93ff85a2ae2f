"""ROUGE-L: parity with both packages, named."""

import builtins
import json
from pathlib import Path

import pytest

from eval.metrics import get_metric
from eval.metrics import rouge_l as module

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "rouge_l.json").read_text())
rouge_l = get_metric("rouge_l")


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_parity(case):
    texts = case["prediction"], case["references"]
    assert rouge_l(*texts, **case["kwargs"]) == pytest.approx(case["expected"], abs=1e-9)
    for value in ("precision", "recall"):
        if value in case:
            assert rouge_l(*texts, **case["kwargs"], value=value) == pytest.approx(case[value], abs=1e-9)


def test_the_packages_differ_and_are_named():
    reference = "the heart is normal in size there is a small left pleural effusion"
    short = "the heart is normal in size"
    assert rouge_l(short, [reference]) == pytest.approx(2 * 6 / 19)
    assert rouge_l(short, [reference], package="pycocoevalcap") == pytest.approx(2.44 * 6 / 13 / (6 / 13 + 1.44))
    assert rouge_l(short, [reference], package="pycocoevalcap", beta=1.0) == pytest.approx(2 * 6 / 19)


def test_coco_takes_the_best_precision_and_recall_of_different_references():
    assert rouge_l("a b", ["a b c d", "a"], package="pycocoevalcap") == pytest.approx(1.0)
    assert rouge_l("a b", ["a b c d", "a"], package="pycocoevalcap", value="recall") == 1.0
    assert rouge_l("a b", ["a b c d", "a"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("package", ["rouge_score", "pycocoevalcap"])
def test_empty_texts(package):
    assert rouge_l("", ["the heart"], package=package) == rouge_l("heart", [], package=package) == 0.0


def test_common_subsequence():
    assert [module.common_subsequence(a, b) for a, b in (("", "a"), ("abcbdab", "bdcaba"), ("abc", "abc"))] == [0, 4, 3]


def test_illegal_options():
    with pytest.raises(ValueError, match="package must be 'rouge_score' or 'pycocoevalcap'"):
        rouge_l("a", ["a"], package="rouge")
    with pytest.raises(ValueError, match="tokenizer 'ptb' is not offered"):
        rouge_l("a", ["a"], package="pycocoevalcap", tokenizer="ptb")


def test_missing_library_is_said_in_one_line(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("rouge_score"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    module.rouge_scorer.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'radio-vlm\[eval\]'"):
        rouge_l("a", ["a"])
