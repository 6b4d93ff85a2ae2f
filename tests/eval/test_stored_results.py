"""A results file is enough: of every benchmark the figures come again from stored rows, and the page can be made."""

import json

import pytest

from eval.comparison import compare
from eval.data import read_dataset
from eval.definitions import definitions
from eval.evaluate import evaluate
from eval.jobs import Job, job_for_data
from eval.recorded import recorded_task
from eval.report.result_markdown import markdown
from eval.report.results_page import results_page
from eval.rescore import rescore
from eval.results import write_json
from eval.results_file import read_results, read_several
from eval.tasks import get_task
from eval.tasks.base import Options
from eval.tasks.dataset import DatasetTask
from tests.helpers.balanced_html import Balanced
from tests.helpers.benchmark_runs import NONSENSE, gold, mini_job, run_job
from tests.helpers.mini_benchmarks import mini_names
from tests.helpers.scripted_backend import ScriptedBackend
from tests.helpers.small_results import row, write


def half_right(job: Job):
    answers = gold(job)
    return {name: text for place, (name, text) in enumerate(answers.items()) if place % 2}


@pytest.mark.parametrize("name", [name for name in mini_names() if name != "chest_xray_expert"])
def test_figures_come_again_and_pages_are_made(name, tmp_path):
    job = mini_job(name, tmp_path)
    a, b = run_job(job, half_right(job), seed=1), run_job(job, lambda _: NONSENSE, seed=1)
    for path, data in (("a.json", a), ("b.json", b)):
        write_json(data, tmp_path / path)
    stored = read_results(tmp_path / "a.json")
    metrics = a["provenance"]["tasks"][job.task.key]["metrics"]
    again = rescore(stored, metrics)
    assert again["tasks"] == stored.tasks
    assert list(again["tasks"][job.task.key]) == list(stored.tasks[job.task.key]), "the headline stays the headline"
    assert [(r["score"], r["scores"]) for r in again["samples"]] == [
        (r["score"], r["scores"]) for r in stored.data["samples"]
    ]
    results = read_several([tmp_path / "a.json", tmp_path / "b.json"])
    [task] = compare(*results).tasks
    figures = [data["tasks"][job.task.key][task.figure] for data in (a, b)]
    assert (task.estimate.a, task.estimate.b) == (
        None if None in figures else pytest.approx(figures[0], abs=1e-4),
        None if None in figures else pytest.approx(figures[1], abs=1e-4),
    )
    assert set(task.others) | {task.figure} == set(job.task.aggregates())
    parser = Balanced()
    parser.feed(results_page(results))
    assert parser.open == [] and f"({len(job.dataset.samples)} questions)" in markdown(results[:1])


def test_figures_of_a_task_whose_expert_is_not_installed_here():
    with pytest.raises(ValueError, match="no expert reads"):
        get_task("chest_xray_expert")().check(Options())
    task = recorded_task("chest_xray_expert", {"task": "chest_xray_expert", "metrics": ["exact_match"]}, [])
    assert task.headline == "f1_macro" and task.metrics == ("exact_match",)


def test_definitions_are_those_of_metrics_and_of_figures_that_are_no_mean():
    said = definitions(get_task("chest_xray")())
    assert set(said) == {"exact_match_closed.llava_med", "f1_macro", "f1_micro", "invalid_rate"}
    assert said["f1_macro"]["definition"].startswith("F1 = 2 TP")
    words = said["exact_match_closed.llava_med"]["definition"]
    assert words.startswith("Exact match of short medical answers") and "llava_med" in words, (
        "the family, then the rule"
    )
    assert said["f1_macro"]["code"] == said["f1_micro"]["code"] != said["exact_match_closed.llava_med"]["code"]


def test_bleu_of_many_answers_is_no_mean(tmp_path):
    rows = [row("a", 1.0, output="a red bus stops here", answers=["a red bus stops here"]),
            row("b", 0.0, output="no", answers=["two men walk along the shore"])]  # fmt: skip
    again = rescore(read_results(write(tmp_path / "r.json", rows)), ["bleu4"])
    figures = again["tasks"]["mine"]
    assert next(iter(figures)) == "bleu4" and figures["bleu4"] != pytest.approx(
        sum(r["score"] for r in again["samples"]) / 2, abs=1e-3
    )


def test_records_that_name_their_own_metrics(tmp_path):
    records = [
        {"id": f"q{i}", "question": "Which?", "answer": "a red bus", "metric": metric}
        for i, metric in enumerate(["anls", "token_f1", "anls", "token_f1"])
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, records)))
    job = job_for_data(tmp_path / "own.jsonl")
    assert isinstance(job.task, DatasetTask) and len(read_dataset(tmp_path / "own.jsonl").samples) == 4
    data = evaluate(ScriptedBackend(lambda _: "a bus"), [job], Options(), progress=False)
    write_json(data, tmp_path / "r.json")
    again = rescore(read_results(tmp_path / "r.json"), ["anls", "token_f1"])
    assert again["tasks"] == data["tasks"] and "own_metric" in data["tasks"]["own"]
