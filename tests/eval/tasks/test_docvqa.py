"""DocVQA over its mini copy: prompt, groups, question types as sub-scores, bad rows, the split without answers."""

from eval.jobs import job_for_task
from eval.sources import DataPlaces
from tests.helpers.benchmark_runs import by_id, figures_of, gold, mini_job, run_job, shown
from tests.helpers.mini_benchmarks import edit_rows, picture_of

TABLE = "lmms-lab-encoder/DocVQA/DocVQA/validation-00001-of-00002.parquet"  # the rows of pages 2 and 3


def test_questions_are_asked_as_lmms_eval_asks_them(tmp_path):
    job = mini_job("docvqa", tmp_path)
    samples = by_id(job)
    assert list(samples) == ["49153", "49154", "49155", "49156"]
    second = samples["49154"]
    assert shown(second) == [
        "<image>",
        "What is name of university?\nAnswer the question using a single word or phrase.",
    ]
    assert [picture_of(sample.media[0]) for sample in samples.values()] == [1, 1, 2, 3]
    assert second.answers == ["university of california", "University of California"]
    assert [sample.group for sample in samples.values()] == ["14466", "14466", "14467", "14468"]
    assert second.kinds == ["layout", "form"] and second.scoring == {}
    assert (job.task.max_new_tokens, job.task.stop, job.task.metrics) == (32, (), ("anls",))
    assert job.dataset.info["split"] == "validation" and job.dataset.info["config"] == "DocVQA"


def test_scores_and_sub_scores(tmp_path):
    job = mini_job("docvqa", tmp_path)
    figures = figures_of(job, gold(job))
    assert figures["anls"] == 1.0 and figures["n"] == 4 and figures_of(job, {})["anls"] == 0.0
    figures = figures_of(job, {"49154": "the university of california", "49155": "ITC"})
    assert figures["anls"] == round((0.8571 + 1) / 4, 4)
    assert figures["kinds"] == {
        "figure/diagram": {"anls": 0.0, "n": 1},
        "layout": {"anls": 0.8571, "n": 1},
        "form": {"anls": round((0.8571 + 1) / 3, 4), "n": 3},
        "handwritten": {"anls": 0.0, "n": 1},
    }


def test_questions_about_one_page_are_resampled_together(tmp_path):
    job = mini_job("docvqa", tmp_path)
    low, high = figures_of(job, {"49153": "0.28", "49154": "University of California"})["intervals"]["anls"]
    assert low == 0.0 and high == 1.0, "two right answers on one page, of three pages"


def test_a_row_without_a_picture_is_named_and_does_not_stop_the_others(tmp_path):
    mini_job("docvqa", tmp_path)
    edit_rows(tmp_path / TABLE, lambda rows: rows[0].update(image=None))
    job = job_for_task("docvqa", DataPlaces(tmp_path, tmp_path / "cache"))
    results = run_job(job, gold(job))
    assert results["tasks"]["docvqa"]["anls"] == 0.75 and results["tasks"]["docvqa"]["failed"] == 1
    (failed,) = [row for row in results["samples"] if row["error"]]
    assert failed["id"] == "docvqa-2" and "no picture in the row" in failed["error"] and failed["score"] == 0.0
    assert failed["kind"] == "form", "a failure counts in the sub-score it belongs to"


def test_a_missing_column_is_named(tmp_path):
    mini_job("docvqa", tmp_path)
    for shard in ("validation-00000-of-00002", "validation-00001-of-00002"):
        edit_rows((tmp_path / TABLE).with_name(f"{shard}.parquet"), lambda rows: None, drop=["questionId"])
    job = job_for_task("docvqa", DataPlaces(tmp_path, tmp_path / "cache"))
    assert [sample.problem for sample in job.dataset.samples] == ["missing column 'questionId'"] * 4
    assert figures_of(job, {})["failed"] == 4


def test_a_copy_under_the_name_the_repository_had_is_found(tmp_path):
    expected = mini_job("docvqa", tmp_path).dataset.digest
    (tmp_path / "lmms-lab").mkdir()
    (tmp_path / "lmms-lab-encoder/DocVQA").rename(tmp_path / "lmms-lab/DocVQA")
    assert job_for_task("docvqa", DataPlaces(tmp_path, tmp_path / "cache")).dataset.digest == expected


def test_the_test_split_is_asked_but_not_scored(tmp_path):
    job = mini_job("docvqa_test", tmp_path)
    sample = by_id(job)["57344"]
    assert shown(sample)[1].endswith("1975?\nAnswer the question using a single word or phrase.")
    results = run_job(job, {"57344": "0.28"})
    figures = results["tasks"]["docvqa_test"]
    assert (figures["anls"], figures["failed"], figures["unscored"]) == (None, 0, 4)
    assert {row["unscored"] for row in results["samples"]} == {"the answers of this split are not public"}
    assert all(row["scores"] == {"anls": None} for row in results["samples"])
