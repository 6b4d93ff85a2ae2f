"""What holds for every public benchmark, over its mini copy; one without a mini copy fails here."""

import json
import logging
from pathlib import Path

import pytest

from eval.jobs import job_for_task
from eval.registry import UnknownNameError
from eval.run import main
from eval.sources import DataPlaces
from eval.tasks import get_task, tasks
from eval.tasks.benchmark import Benchmark
from tests.helpers.benchmark_runs import NONSENSE, gold, mini_job, run_job, without_answers
from tests.helpers.mini_benchmarks import mini_names
from tests.helpers.scripted_backend import ScriptedBackend

NAMES = [name for name in tasks if issubclass(get_task(name), Benchmark)]
WITH_COPY = [name for name in NAMES if name in mini_names()]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A mini copy must be enough: whatever would be fetched fails at once, with a name that says so."""

    def refused(*args, **kwargs):
        raise AssertionError(f"a download was tried: {args} {kwargs}")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refused)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refused)


def test_every_benchmark_has_a_mini_copy():
    assert set(NAMES) <= set(mini_names()), "add tests/helpers/mini_benchmarks/<name>.py"


@pytest.mark.parametrize("name", WITH_COPY)
def test_a_benchmark_runs_over_its_mini_copy(name, tmp_path):
    job = mini_job(name, tmp_path)
    samples = job.dataset.samples
    assert len(samples) >= 2 and not [sample.problem for sample in samples if sample.problem]
    assert len({sample.id for sample in samples}) == len(samples) == len({*map(str, samples)})
    assert all(sample.answers or sample.unscored for sample in samples)
    results = run_job(job, gold(job))
    figures, rows = results["tasks"][name], results["samples"]
    assert [row["error"] for row in rows] == [None] * len(samples) == [None] * figures["n"]
    headline = job.task.headline
    nonsense = run_job(job, lambda _: NONSENSE)["tasks"][name][headline]
    if all(sample.unscored for sample in samples):
        assert figures[headline] is None is nonsense and figures["unscored"] == len(samples)
    else:
        assert figures[headline] > nonsense
    about = results["provenance"]["tasks"][name]
    assert about["max_new_tokens"] > 0 and about["data"]["repository"] and about["data"]["prompt"]
    json.dumps(results)


@pytest.mark.parametrize("name", WITH_COPY)
def test_limit_reads_only_the_first_questions(name, tmp_path):
    everything, first = mini_job(name, tmp_path), job_for_task(name, DataPlaces(tmp_path, tmp_path / "cache"), 1)
    assert first.dataset.samples == everything.dataset.samples[:1]


@pytest.mark.parametrize("name", ["docvqa", "videomme", "mmlongbench_doc"])
def test_the_same_questions_have_one_digest_wherever_they_lie(name, tmp_path):
    """Else results of two machines could not be known to be about the same data, nor a run go on elsewhere."""
    one, other = (mini_job(name, tmp_path / folder).dataset for folder in ("a", "b"))
    assert one.digest == other.digest and one.samples[0].media != other.samples[0].media
    assert mini_job(name, tmp_path / "c", limit=1).dataset.digest != one.digest


def test_missing_gold_answers_are_named_and_count_as_wrong(tmp_path, caplog):
    job = mini_job("docvqa", tmp_path)
    with caplog.at_level(logging.WARNING):
        results = run_job(without_answers(job), gold(job))
    figures = results["tasks"]["docvqa"]
    assert figures["anls"] == 0.0 and figures["failed"] == figures["n"] == 4
    assert all("no gold answer" in row["error"] for row in results["samples"]) and "49153" in caplog.text


def test_pictures_are_written_once_and_nothing_else(tmp_path):
    """Reading streams the parquet files: what appears on disk are the pictures, each once however often it is asked."""
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    job = mini_job("docvqa", tmp_path)
    mini_job("docvqa", tmp_path)
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    kinds = sorted(path.suffix for path in new)
    assert kinds == [".md", ".parquet", ".parquet", *[".png"] * 3]
    assert {path for path in new if path.suffix == ".png"} == {
        Path(item).resolve() for sample in job.dataset.samples for item in sample.media
    }


def test_an_unknown_benchmark_lists_the_known_ones(tmp_path):
    known = r"unknown task 'docvqq' \(did you mean docvqa\?\); known: .*ai2d.*docvqa, docvqa_test.*textvqa"
    with pytest.raises(UnknownNameError, match=known):
        job_for_task("docvqq", DataPlaces(tmp_path))


def test_data_that_is_nowhere_is_told_with_the_way_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="hf download lmms-lab-encoder/ChartQA --repo-type dataset --local-dir"):
        job_for_task("chartqa", DataPlaces(tmp_path, tmp_path / "cache"))


def test_a_submission_is_left_beside_the_results(tmp_path, monkeypatch, capsys):
    mini_job("docvqa_test", tmp_path), mini_job("ai2d", tmp_path)
    answers = {"57344": "0.28", "57345": "<think>hm</think> a university"}
    backend = ScriptedBackend(lambda sample_id: answers.get(sample_id, ""))
    monkeypatch.setattr("eval.backends.open_backend", lambda *_, **__: backend)
    out = tmp_path / "run" / "mine.json"
    words = ["--model", "m", "--tasks", "docvqa_test,ai2d", "--data-root", str(tmp_path), "--out", str(out)]
    assert main([*words, "--cache-dir", str(tmp_path / "cache"), "--no-progress"]) == 0
    path = out.with_name("mine-docvqa_test_for_submission.json")
    assert json.loads(path.read_text()) == [
        {"questionId": 57344, "answer": "0.28"},
        {"questionId": 57345, "answer": "a university"},
        {"questionId": 57346, "answer": ""},
        {"questionId": 57347, "answer": ""},
    ]
    assert f"submission  {path}" in capsys.readouterr().out
    assert sorted(item.name for item in out.parent.iterdir()) == ["mine-docvqa_test_for_submission.json", "mine.json"]
