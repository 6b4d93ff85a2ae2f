"""Files of one's own: which metric decides, when records name several, have options, or name something odd."""

import json

import pytest

from eval.evaluate import evaluate
from eval.jobs import job_for_data
from eval.registry import UnknownNameError
from eval.run import main
from eval.tasks.base import Options
from tests.eval.test_resume import Echo

ROWS = [
    {"id": "a", "question": "12500", "answers": ["12,500"], "metric": "anls", "kind": "form"},
    {"id": "b", "question": "10.4", "answers": [10], "metric": "relaxed_accuracy", "kind": "chart"},
    {"id": "c", "question": "Pick (B)", "options": ["red", "green"], "answer": "B"},
    {"id": "d", "question": "Pick red", "options": ["red", "green"], "answer": "green"},
    {"id": "e", "question": "yes", "answers": ["yes"]},
]


class AnswersWithTheFirstLine(Echo):
    def encode(self, messages, sample_id):
        messages = [{"content": [{"text": messages[-1]["content"][0]["text"].splitlines()[0].removeprefix("Pick ")}]}]
        return super().encode(messages, sample_id)


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def run(path, metric=None, **options):
    job = job_for_data(path, metric)
    return evaluate(AnswersWithTheFirstLine(), [job], Options(**options), progress=False)


def test_each_record_is_scored_under_the_metric_that_it_names(tmp_path):
    results = run(write(tmp_path / "mine.jsonl", ROWS))
    rows = {row["id"]: row for row in results["samples"]}
    assert {name: row["score"] for name, row in rows.items()} == {
        "a": pytest.approx(5 / 6), "b": 1.0, "c": 1.0, "d": 0.0, "e": 1.0
    }  # fmt: skip
    assert rows["a"]["scores"] == {"anls": rows["a"]["score"], "relaxed_accuracy": None, "mcq_accuracy": None,
                                   "exact_match": None}  # fmt: skip
    figures = results["tasks"]["mine"]
    assert figures["own_metric"] == round((5 / 6 + 3) / 5, 4) and list(figures)[0] == "own_metric"
    assert (figures["anls"], figures["mcq_accuracy"], figures["exact_match"]) == (0.8333, 0.5, 1.0)
    low, high = figures["intervals"]["own_metric"]
    assert low < figures["own_metric"] < high
    assert set(figures["kinds"]) == {"form", "chart", "all"}


def test_the_metric_of_the_command_line_is_for_all(tmp_path):
    figures = run(write(tmp_path / "mine.jsonl", ROWS), "exact_match")["tasks"]["mine"]
    assert figures["exact_match"] == 0.2 and "own_metric" not in figures


def test_questions_with_options_are_multiple_choice(tmp_path):
    results = run(write(tmp_path / "mine.jsonl", ROWS[2:4]))
    assert results["tasks"]["mine"]["mcq_accuracy"] == 0.5
    assert results["samples"][0]["scoring"] == {"options": ["red", "green"]}
    assert results["samples"][0]["question"] == "Pick (B)\nA. red\nB. green"


def test_a_record_that_cannot_be_read_counts_as_wrong_under_every_metric(tmp_path):
    figures = run(write(tmp_path / "mine.jsonl", [*ROWS, {"id": "f", "question": "no answer"}]))["tasks"]["mine"]
    assert (figures["n"], figures["failed"]) == (6, 1)
    assert figures["own_metric"] == round((5 / 6 + 3) / 6, 4) and figures["anls"] == round(5 / 12, 4)


def test_bleu_over_many_answers_is_the_corpus_figure(tmp_path):
    pytest.importorskip("sacrebleu", reason="optional package absent")
    texts = [("the heart is of normal size today", "the heart is of normal size"), ("clear lungs", "lungs are clear")]
    rows = [{"id": str(i), "question": said, "answers": [gold]} for i, (said, gold) in enumerate(texts)]
    results = run(write(tmp_path / "reports.jsonl", rows), "bleu2")
    from eval.metrics import get_metric

    corpus = get_metric("bleu2")([said for said, _ in texts], [[gold] for _, gold in texts], level="corpus") / 100
    mean = sum(row["score"] for row in results["samples"]) / 2
    assert results["tasks"]["reports"]["bleu2"] == pytest.approx(corpus, abs=1e-4) and abs(corpus - mean) > 0.01


def test_metrics_that_are_none(tmp_path, capsys):
    path = write(tmp_path / "mine.jsonl", [{**ROWS[0], "metric": "anlz"}])
    with pytest.raises(UnknownNameError, match=r"mine.jsonl, record a: unknown metric 'anlz' \(did you mean anls\?\)"):
        job_for_data(path)
    assert main(["--model", "m", "--task-file", str(path), "--metric", "mcq_option_extraction"]) == 2
    assert "metric mcq_option_extraction gives no score: use mcq_accuracy" in capsys.readouterr().err


def test_a_gold_answer_that_is_no_option_is_said_and_not_just_wrong(tmp_path):
    """An index instead of a letter would make every answer wrong, and the model look bad."""
    rows = [
        {"id": "index", "question": "Pick A", "options": ["red", "green"], "answer": 1},
        {"id": "number", "question": "Pick 7", "options": [5, 7], "answer": 7},
        {"id": "letter", "question": "Pick b", "options": ["red", "red"], "answer": "b"},
        {"id": "both", "question": "Pick red", "options": ["red", "red"], "answer": "red"},
    ]
    rows = {row["id"]: row for row in run(write(tmp_path / "mine.jsonl", rows))["samples"]}
    assert rows["index"]["error"] == "gold answer '1' is none of the 2 options, nor the letter of one"
    assert {name: row["error"] for name, row in rows.items() if name != "index"} == dict.fromkeys(
        ("number", "letter", "both")
    )
    assert rows["number"]["score"] == rows["letter"]["score"] == 1.0


def test_an_answer_that_is_null_is_no_answer(tmp_path):
    rows = [
        {"id": "null", "question": "None", "answers": [None]},
        {"id": "some", "question": "None", "answers": [None, "x"]},
        {"id": "either", "question": "x", "answers": None, "answer": "x"},
        {"id": "zero", "question": "0", "answers": [0]},
    ]
    rows = {row["id"]: row for row in run(write(tmp_path / "mine.jsonl", rows))["samples"]}
    assert {name: row["score"] for name, row in rows.items()} == {"null": 0.0, "some": 0.0, "either": 1.0, "zero": 1.0}
    assert rows["null"]["error"] == "no gold answer in the record" and rows["some"]["answers"] == ["x"]


def test_ids_are_told_apart_also_from_those_that_look_like_ours(tmp_path):
    rows = [{"id": name, "question": str(n), "answers": ["x"]} for n, name in enumerate(["a", "a", "a~2", "a"])]
    found = [(row["id"], row["question"]) for row in run(write(tmp_path / "mine.jsonl", rows))["samples"]]
    assert found == [("a", "0"), ("a~3", "1"), ("a~2", "2"), ("a~4", "3")]


@pytest.mark.parametrize("record, words", [
    ({"metric": "temporal_iou", "answers": ["soon"]}, "cannot be scored: the gold answer 'soon' is no span"),
    ({"metric": "mcq_accuracy", "options": ["a", "b"], "answer": "A", "scoring": {"extractor": "guess"}},
     "cannot be scored: unknown"),
    ({"metric": "anls", "answers": ["a"], "scoring": {"threshold": "high"}}, "cannot be scored: '>=' not supported"),
])  # fmt: skip
def test_what_a_metric_cannot_take_costs_one_sample_and_not_the_run(tmp_path, record, words):
    rows = [{"id": "bad", "question": "[1, 2]", **record}, {"id": "good", "question": "x", "answers": ["x"]}]
    results = run(write(tmp_path / "mine.jsonl", rows))
    bad, good = results["samples"]
    assert bad["error"].startswith(words) and bad["score"] == 0.0 and good["score"] == 1.0
    assert bad["output"] == "[1, 2]", "what the model said is kept"
    assert results["tasks"]["mine"]["failed"] == 1
