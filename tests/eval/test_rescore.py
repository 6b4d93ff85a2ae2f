"""Rescoring: the same metric gives the same file, another metric other figures, and the input is never touched."""

import re

import pytest

from eval.backends.radio import RadioBackend
from eval.evaluate import evaluate
from eval.jobs import job_for_data
from eval.rescore import main, rescore
from eval.results import write_json
from eval.results_file import read_results
from eval.tasks.base import Options
from tests.eval.test_evaluate import documents, reader
from tests.helpers.fake_vlm import FakeModel, FakeProcessor
from tests.helpers.small_results import read, row, write

CHOICES = {"options": ["red", "blue", "green"]}


def choice(name, output, gold="B"):
    right = float(output == gold)
    return row(
        name, right, task="choices", output=output, answers=[gold], scoring=CHOICES, scores={"mcq_accuracy": right}
    )


def test_the_same_metrics_reproduce_a_run_exactly(tmp_path):
    def sometimes(picture, text):
        return reader(picture, text) if len(picture) % 3 else "nothing"

    backend = RadioBackend(FakeModel(sometimes), FakeProcessor())
    data = evaluate(backend, [job_for_data(documents(tmp_path / "d"))], Options(seed=1), progress=False)
    assert 0 < data["tasks"]["documents"]["exact_match"] < 1
    write_json(data, tmp_path / "r.json")
    again = rescore(read_results(tmp_path / "r.json"), ["exact_match", "anls"])
    assert again["tasks"] == data["tasks"], "figures, intervals, kinds and controls"
    assert again["samples"] == data["samples"]
    changed = {key for key in data["provenance"] if again["provenance"][key] != data["provenance"][key]}
    assert changed == set()


def test_another_metric_becomes_the_headline_and_the_old_ones_stay(tmp_path, capsys):
    path = write(tmp_path / "r.json", [row("a", 1.0), row("b", 0.0, output="yes, sure"), row("c", 0.0)])
    before = path.read_bytes()
    assert main([str(path), "--metric", "token_recall", "--out", str(tmp_path / "n.json")]) == 0
    new = read(tmp_path / "n.json")
    assert list(new["tasks"]["mine"])[:3] == ["token_recall", "exact_match", "anls"]
    assert new["tasks"]["mine"]["token_recall"] == pytest.approx(2 / 3, abs=1e-4)
    assert new["tasks"]["mine"]["exact_match"] == read(path)["tasks"]["mine"]["exact_match"]
    assert [r["score"] for r in new["samples"]] == [1.0, 1.0, 0.0]
    assert path.read_bytes() == before
    note = new["provenance"]["rescored"][-1]
    assert note["sha256"] == read_results(path).digest and note["metrics"] == ["token_recall"]
    assert "token_recall" in new["provenance"]["tasks"]["mine"]["definitions"]
    printed = capsys.readouterr().out
    assert "1 of 3 answers have another headline score" in printed and "–" in printed and "0.667" in printed


def test_a_setting_goes_over_what_the_samples_say(tmp_path):
    rows = [choice("letter", "B"), choice("words", "I would say (B), though blue and red are close"), choice("no", "?")]
    path = write(tmp_path / "r.json", rows)
    words = ["--metric", "mcq_accuracy", "--set", "extractor=mmmu.parse_multi_choice_response"]
    assert main([str(path), *words, "--out", str(tmp_path / "a.json")]) == 0
    new = read(tmp_path / "a.json")
    assert {r["scoring"]["extractor"] for r in new["samples"]} == {"mmmu.parse_multi_choice_response"}
    assert new["samples"][0]["scoring"]["options"] == CHOICES["options"]
    assert new["provenance"]["rescored"][0]["settings"] == {"extractor": "mmmu.parse_multi_choice_response"}
    assert [r["score"] for r in rows] == [1.0, 0.0, 0.0] and [r["score"] for r in new["samples"]] == [1.0, 1.0, 0.0]


def test_failed_and_unscored_answers_stay_what_they_are(tmp_path):
    rows = [
        row("a", 1.0),
        row("bad", 0.0, error="OSError: gone", output="yes"),
        row("judge", None, unscored="no judge"),
    ]
    rows.append(row("closed", 1.0, scores={"exact_match": 1.0, "anls": None}))
    new = rescore(read_results(write(tmp_path / "r.json", rows)), ["anls"])
    assert [r["scores"]["anls"] for r in new["samples"]] == [1.0, 0.0, None, None]
    assert new["samples"][3]["score"] == 1.0, "a metric that was not for a sample leaves its score alone"
    assert new["tasks"]["mine"]["unscored"] == 1 and new["tasks"]["mine"]["failed"] == 1
    assert new["tasks"]["mine"]["anls"] == 0.5


def test_only_the_named_task_changes(tmp_path):
    path = write(tmp_path / "r.json", [row("a", 1.0), row("a", 0.0, task="other")])
    new = rescore(read_results(path), ["token_f1"], tasks=["other"])
    assert "token_f1" in new["tasks"]["other"] and new["tasks"]["mine"] == read(path)["tasks"]["mine"]
    assert new["samples"][0] == read(path)["samples"][0]


def test_a_mean_over_kinds_stays_one(tmp_path):
    def choose(kind, number):
        right = float(kind == "a")
        said = {"output": "A", "answers": ["A"], "scoring": CHOICES, "scores": {"mcq_accuracy": right}}
        return row(f"{kind}{number}", right, kind=kind, task="mlvu", **said)

    rows = [choose("a", i) for i in range(6)] + [choose("b", i) for i in range(2)]
    path = write(tmp_path / "r.json", rows, about={"task": "mlvu"})
    before = read(path)["tasks"]["mlvu"]
    name = next(iter(before))
    assert before[name] == 0.5, "not 6 of 8"
    new = rescore(read_results(path), ["exact_match"])["tasks"]["mlvu"]
    assert next(iter(new)) == name.replace("mcq_accuracy", "exact_match") and new[next(iter(new))] == 1.0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--metric", "nonsense"], "unknown metric 'nonsense'; known: .*anls"),
        (["--metric", "anls", "--set", "extractor=x"], "no such setting: extractor. What can be set: anls"),
        (["--metric", "anls", "--task", "docs"], "has no task docs; it has: mine"),
        (["--metric", "mcq_option_extraction"], "sample 'a' of task 'mine' cannot be scored"),
        (["--metric", ","], "at least one metric"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path, capsys, words, expected):
    path = write(tmp_path / "r.json", [row("a", 1.0)])
    out = tmp_path / "n.json"
    assert main([str(path), *words, "--out", str(out)]) == 2 and not out.exists()
    error = capsys.readouterr().err
    assert re.search(expected, error), error


def test_nothing_is_written_over(tmp_path, capsys):
    path = write(tmp_path / "r.json", [row("a", 1.0)])
    assert main([str(path), "--metric", "anls", "--out", str(path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([str(path), "--metric", "anls"]) == 0 and (tmp_path / "r-anls.json").is_file()
    assert main([str(path), "--metric", "anls"]) == 2, "nor a rescored file"
    (tmp_path / "broken.json").write_text("[1")
    assert main([str(tmp_path / "broken.json"), "--metric", "anls"]) == 2
    assert "broken.json is no results file" in capsys.readouterr().err


def test_weighed_answers_cannot_be_rescored(tmp_path):
    rows = [row("a", 0.4, scores={"answer_probability": 0.4}, output="")]
    path = write(tmp_path / "r.json", rows, about={"task": "likelihood"})
    with pytest.raises(ValueError, match="weighed, not generated"):
        rescore(read_results(path), ["anls"])
