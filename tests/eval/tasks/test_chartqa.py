"""ChartQA over its mini copy: the tolerance of numbers, the two halves and their mean."""

from eval.jobs import job_for_task
from eval.sources import DataPlaces
from tests.helpers.benchmark_runs import by_id, figures_of, gold, mini_job, run_job, shown
from tests.helpers.mini_benchmarks import edit_rows, picture_of

TABLE = "lmms-lab-encoder/ChartQA/data/test-00000-of-00001.parquet"


def test_questions_are_asked_as_lmms_eval_asks_them(tmp_path):
    job = mini_job("chartqa", tmp_path)
    samples = by_id(job)
    assert list(samples) == ["test_0", "test_1", "test_2"]
    assert shown(samples["test_0"]) == [
        "<image>",
        "How many food item is shown in the bar graph?\nAnswer the question with a single word.",
    ]
    assert [picture_of(sample.media[0]) for sample in samples.values()] == [1, 2, 3]
    assert [sample.kind for sample in samples.values()] == ["human", "human", "augmented"]
    assert samples["test_2"].answers == ["50.5"] and job.task.max_new_tokens == 16


def test_halves_and_their_mean(tmp_path):
    job = mini_job("chartqa", tmp_path)
    assert figures_of(job, gold(job))["relaxed_accuracy"] == 1.0
    assert figures_of(job, {})["relaxed_accuracy"] == 0.0
    figures = figures_of(job, {"test_0": "14.7", "test_1": "no", "test_2": "50"})
    assert figures["relaxed_accuracy"] == round(2 / 3, 4) and figures["mean_of_halves"] == 0.75
    assert figures["kinds"] == {
        "human": {"relaxed_accuracy": 0.5, "n": 2},
        "augmented": {"relaxed_accuracy": 1.0, "n": 1},
    }


def test_a_broken_row_lowers_its_half_and_an_unknown_half_is_named(tmp_path):
    mini_job("chartqa", tmp_path)

    def change(rows):
        rows[1]["image"] = None
        rows[2]["type"] = "other"

    edit_rows(tmp_path / TABLE, change)
    job = job_for_task("chartqa", DataPlaces(tmp_path, tmp_path / "cache"))
    results = run_job(job, gold(job))
    figures = results["tasks"]["chartqa"]
    assert figures["kinds"]["human"] == {"relaxed_accuracy": 0.5, "n": 2} and figures["failed"] == 2
    errors = [row["error"] for row in results["samples"] if row["error"]]
    assert "no picture" in errors[0] and errors[1] == "type is 'other'; known: human_test, augmented_test"


def test_an_answer_that_is_missing_is_named(tmp_path):
    mini_job("chartqa", tmp_path)
    edit_rows(tmp_path / TABLE, lambda rows: rows[0].update(answer=None))
    job = job_for_task("chartqa", DataPlaces(tmp_path, tmp_path / "cache"))
    results = run_job(job, lambda _: "None")
    assert results["samples"][0]["error"] == "no gold answer in the record" and results["samples"][0]["score"] == 0.0
