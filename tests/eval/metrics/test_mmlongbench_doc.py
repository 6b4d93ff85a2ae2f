"""MMLongBench-Doc: parity under both rules, format by format, the differences between them, and its F1."""

import json
from pathlib import Path

import pytest

from eval.metrics import get_metric
from eval.metrics.mmlongbench_doc import clean, is_answerable
from tests.helpers.slow_answerable_f1 import generalised_f1

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "mmlongbench_doc.json").read_text())
score = get_metric("mmlongbench_doc")


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_parity(case):
    texts = case["prediction"], case["references"]
    assert score(*texts, **case["kwargs"]) == pytest.approx(case["expected"], abs=1e-9)
    other = score(*texts, rule="vlmevalkit", **case["kwargs"])
    assert other == pytest.approx(case["expected_vlmevalkit"], abs=1e-9)


@pytest.mark.parametrize(
    "answer_format, prediction, gold, lmms_eval, vlmevalkit",
    [
        ("Int", "The answer is 3", "3", 1.0, 0.0),
        ("Int", "1,234", "1234", 1.0, 0.0),
        ("Int", "3.7", "3", 1.0, 1.0),  # truncated
        ("Int", "3", "3.0", 1.0, 0.0),  # a gold that Python's int refuses
        ("Int", "inf", "3", 0.0, 0.0),
        ("Int", "9" * 400, "9" * 400, 0.0, 0.0),
        ("Int", "x", "", 0.0, 1.0),
        ("Float", "0.125", "12.5%", 1.0, 1.0),
        ("Float", "12.6", "12.5", 1.0, 1.0),
        ("Float", "12.7", "12.5", 0.0, 0.0),
        ("Float", "about 12.5", "12.5", 1.0, 0.0),
        ("Float", "0.004", "0", 1.0, 1.0),  # equal at two decimals
        ("Float", "0.006", "0", 0.0, 0.0),
        ("Float", "x", "12.5", 0.0, 0.0),
        ("Str", "5 miles", "5", 1.0, 0.0),
        ("Str", "a  b", "a b", 1.0, 0.75),
        ("Str", "ab", "ac", 0.0, 0.0),  # 0.5 is not enough here
        ("Str", "http://a.b/d", "http://a.b/c", 0.0, 11 / 12),
        ("Str", "x.ipynb", "xipynb", 6 / 7, 0.0),
        ("Str", "(7)", "7", 0.0, 0.0),
        ("Str", "(7)", "", 1.0, 1.0),
        ("Str", "ß", "", 0.0, 0.0),
        ("List", "['b', 'a']", "['a', 'b']", 1.0, 1.0),
        ("List", "['a-b', 'c']", "['page-a', 'b-c']", 0.0, 0.0),
        ("List", "['1-2', '3']", "['1', '2-3']", 0.0, 1.0),  # VLMEvalKit joins before it compares
        ("List", "[]", "[]", 1.0, 0.0),
        ("List", "None", "[]", 1.0, 0.0),
        ("List", "['apple'", "['apple']", 5 / 7, 0.0),  # not a list: lmms-eval compares it as text
        ("List", "7", "['7']", 1.0, 1.0),
        ("None", "Not answerable", "Not answerable", 1.0, 1.0),
        ("None", "not answerable.", "Not answerable", 0.0, 14 / 15),
    ],
)
def test_rules_by_format(answer_format, prediction, gold, lmms_eval, vlmevalkit):
    scores = [score(prediction, [gold], answer_format, rule=rule) for rule in ("lmms_eval", "vlmevalkit")]
    assert scores == pytest.approx([lmms_eval, vlmevalkit])


def test_answers_are_parsed_but_never_run(tmp_path):
    trace = tmp_path / "trace"
    attack = f"[open({str(trace)!r}, 'w')]"
    assert score(attack, ["['a']"], "List", rule="vlmevalkit") == score(attack, ["['a']"], "List") == 0.0
    assert not trace.exists()


def test_cleaning():
    assert clean(" $5 million (est.) ") == "5"
    assert clean(" $5 million (est.) ", "vlmevalkit") == "5 million"
    assert clean("'quoted'%") == "quoted'"


def test_formats():
    assert score("3", [3], "Integer") == score("x", ["x"], "string") == score("x", ["x"], None) == 1.0
    with pytest.raises(ValueError, match="unknown answer_format 'Date'; known: int, float, str, list, none, integer"):
        score("x", ["x"], answer_format="Date")
    with pytest.raises(
        ValueError, match="unknown rule 'gpt' of metric 'mmlongbench_doc'; known: lmms_eval, vlmevalkit"
    ):
        score("x", ["x"], rule="gpt")


@pytest.mark.parametrize("answer_format", ["Int", "Float", "Str", "List", "None"])
@pytest.mark.parametrize("rule", ["lmms_eval", "vlmevalkit"])
def test_missing_golds_and_predictions(answer_format, rule):
    for references in ([], None, [None]):
        assert score("x", references, answer_format, rule=rule) == 0.0
    assert score("", ["7"], answer_format, rule=rule) == 0.0


def test_f1():
    assert [is_answerable(text) for text in ("Not Answerable", " not  answerable ", "not answerable.", "")] == [
        False,
        False,
        True,
        True,
    ]
    rows = [(1.0, True, True), (0.5, True, True), (0.0, True, False), (1.0, False, False), (0.0, False, True)]
    recall, precision = 1.5 / 3, 1.5 / 3
    assert generalised_f1(rows) == pytest.approx(2 * recall * precision / (recall + precision))
    assert generalised_f1([]) == generalised_f1([(1.0, False, False)]) == 0.0
