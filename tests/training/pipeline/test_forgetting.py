"""Judging what a model lost: by the best, the previous or the first model, task by task."""

import json

import pytest

from training.pipeline.folder import Guard
from training.pipeline.forgetting import Evaluation, Score, judge, read_results, settings_hash, table, write_report
from training.recipe import RecipeError


def evaluations(*rows: dict[str, float]) -> list[Evaluation]:
    names = ["start", "one", "two", "three"]
    return [
        Evaluation(name, {task: Score("exact_match", value, 100) for task, value in row.items()})
        for name, row in zip(names, rows)
    ]


ROWS = ({"text": 0.50, "docs": 0.0}, {"text": 0.60, "docs": 0.4}, {"text": 0.55, "docs": 0.5}, {"text": 0.53})


@pytest.mark.parametrize(
    ("compare", "reference", "name"), [("best", 0.60, "one"), ("previous", 0.55, "two"), ("first", 0.50, "start")]
)
def test_the_reference(compare, reference, name):
    (verdict,) = judge(evaluations(*ROWS), Guard(data=["x"], tolerance=0.04, compare=compare))
    assert (verdict.reference, verdict.reference_name) == (reference, name)
    assert verdict.forgotten == (compare == "best")  # 0.07 below the best, 0.02 below the previous, above the first


def test_each_task_has_its_tolerance_and_a_drop_of_just_that_is_kept():
    rows = evaluations({"text": 0.60, "docs": 0.60}, {"text": 0.58, "docs": 0.58})
    guard = Guard(data=["x"], tolerance=0.02, tolerances={"docs": 0.01})
    assert [verdict.forgotten for verdict in judge(rows, guard)] == [False, True]
    assert judge(rows[:1], guard) == []


def test_results_of_an_evaluation(tmp_path):
    results = {
        "tasks": {"docs": {"anls": 0.9, "exact_match": 0.8, "n": 50}},
        "provenance": {"tasks": {"docs": {"metrics": ["exact_match", "anls"]}}},
    }
    (tmp_path / "r.json").write_text(json.dumps(results))
    assert read_results(tmp_path / "r.json", "one").scores == {"docs": Score("exact_match", 0.8, 50)}
    results["tasks"]["docs"]["exact_match"] = None
    (tmp_path / "r.json").write_text(json.dumps(results))
    with pytest.raises(RecipeError, match="docs has no score"):
        read_results(tmp_path / "r.json", "one")


def test_the_report_says_what_was_forgotten(tmp_path):
    rows = evaluations({"text": 0.60, "docs": 0.1}, {"text": 0.30, "docs": 0.4})
    guard = Guard(data=["x"])
    verdicts = judge(rows, guard)
    write_report(tmp_path, rows, {"start": [], "one": verdicts}, guard)
    text = (tmp_path / "guard.md").read_text()
    assert "After one: text forgotten." in text and "-0.300 to start" in text and "0.600 ± 0.049" in text
    lines = table(rows, verdicts).splitlines()
    assert len({len(line) for line in lines}) == 1 and "FORGOTTEN" in lines[2] and "kept" in lines[3]
    record = json.loads((tmp_path / "guard.json").read_text())
    assert [verdict["forgotten"] for verdict in record["verdicts"]["one"]] == [True, False]


def test_other_questions_are_another_evaluation():
    guard = Guard(data=["x"])
    assert settings_hash(guard, "d") == settings_hash(Guard(data=["x"], tolerance=0.5, action="flag"), "d")
    assert settings_hash(guard, "d") != settings_hash(guard, "e") != settings_hash(Guard(data=["x"], limit=3), "e")
