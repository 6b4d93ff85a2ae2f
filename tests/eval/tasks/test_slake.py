"""SLAKE: languages, kinds, and lmms-eval's normalisation beside strict equality."""

import pytest

from eval.jobs import job_for_task
from eval.sources import DataPlaces
from tests.helpers.benchmark_runs import NONSENSE, by_id, figures_of, gold, mini_job, run_job, shown
from tests.helpers.mini_benchmarks import picture_of
from tests.helpers.mini_benchmarks.slake import ROWS, slake_row, write


def job_of(tmp_path, name="slake", **options):
    write(tmp_path, **options)
    return job_for_task(name, DataPlaces(tmp_path, tmp_path / "cache"))


def test_english_questions(tmp_path):
    samples = by_id(mini_job("slake", tmp_path))
    assert list(samples) == ["11934", "11936", "11938", "11944"]
    assert shown(samples["11938"]) == [
        "<image>",
        "Does the picture contain liver?\nAnswer the question using a single word or phrase.",
    ]
    assert [s.meta["answer_type"] for s in samples.values()] == ["open", "open", "closed", "closed"]
    assert [picture_of(s.media[0]) for s in samples.values()] == [102, 102, 102, 103]
    assert samples["11934"].group == samples["11938"].group == "xmlab102/source.jpg" != samples["11944"].group
    assert samples["11944"].kinds == ["size", "answer type closed", "modality mri"]


def test_chinese_questions(tmp_path):
    job = mini_job("slake_zh", tmp_path)
    first, second = job.dataset.samples
    assert shown(first) == ["<image>", "图中包含肝脏吗？\n请用一个词或短语回答问题。"]
    figures = figures_of(job, {first.id: "是的。", second.id: "CT"})  # another way to say yes
    assert (figures["accuracy_slake"], figures["exact_match"]) == (0.5, 0.0)
    assert job.dataset.info["language"] == "zh"


def test_figures_by_hand(tmp_path):
    answers = {"11934": "x ray (chest)", "11936": "lung", "11938": "Nope", "11944": "the lung"}
    figures = figures_of(mini_job("slake", tmp_path), answers)
    assert figures["accuracy_slake"] == 0.5  # X-Ray and no; neither one organ of two nor an article
    assert figures["closed_accuracy"] == 0.0 and figures["exact_match"] == 0.0
    assert figures["open_recall"] == round((1 + 1 / 3) / 2, 4)  # "x ray"; one of "lung spinal cord"
    kinds = figures["kinds"]
    assert kinds["answer type closed"]["accuracy_slake"] == kinds["answer type open"]["accuracy_slake"] == 0.5
    assert kinds["modality ct"] == {"accuracy_slake": 0.6667, "closed_accuracy": 0.0, "open_recall": 0.6667, "n": 3}
    assert kinds["modality mri"]["accuracy_slake"] == 0.0 and kinds["modality"]["accuracy_slake"] == 1.0
    assert figures["questions_by_type"] == {"closed": 2, "open": 2}


def test_a_model_that_knows_and_one_that_does_not(tmp_path):
    job = mini_job("slake", tmp_path)
    names = ("accuracy_slake", "closed_accuracy", "open_recall", "open_f1", "exact_match")
    assert [figures_of(job, gold(job))[name] for name in names] == [1.0] * 5
    assert [figures_of(job, lambda _: NONSENSE)[name] for name in names] == [0.0] * 5


def test_pictures_at_the_top_of_the_archive_or_unpacked(tmp_path):
    job = job_of(tmp_path / "a", inside="")
    assert [s.problem for s in job.dataset.samples] == [None] * 4
    copy = write(tmp_path / "b")
    (copy.folder / "imgs.zip").unlink()
    with pytest.raises(FileNotFoundError, match="neither imgs.zip nor a folder imgs"):
        job_for_task("slake", DataPlaces(tmp_path / "b", tmp_path / "cache"))
    copy.file("imgs/xmlab102/source.jpg", (tmp_path / "a/cache/slake/imgs/xmlab102/source.jpg").read_bytes())
    job = job_for_task("slake", DataPlaces(tmp_path / "b", tmp_path / "cache"))
    assert [s.problem is None for s in job.dataset.samples] == [True, True, True, False]


def test_bad_rows_are_named(tmp_path):
    broken = slake_row(1, 102, "Is it?", "Yes", "CLOSED")
    del broken["img_name"]
    job = job_of(tmp_path, rows=[ROWS[2], broken, slake_row(2, 9, "Is it?", "Yes", "CLOSED"), 5])
    errors = {row["id"]: row["error"] for row in run_job(job, gold(job))["samples"] if row["error"]}
    assert errors == {
        "slake-1": "missing column 'img_name'",
        "2": errors["2"],
        "slake-3": "test.json[3]: not a JSON object",
    }
    assert "xmlab9/source.jpg: no such file" in errors["2"]
    assert figures_of(job, gold(job))["closed_accuracy"] == 0.25
