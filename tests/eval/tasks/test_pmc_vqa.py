"""PMC-VQA: both versions of its files, the authors' prompt, letters taken off the options."""

import pytest

from eval.jobs import job_for_task
from eval.sources import DataPlaces
from tests.helpers.benchmark_runs import NONSENSE, by_id, figures_of, gold, mini_job, run_job, shown
from tests.helpers.mini_benchmarks import picture_of
from tests.helpers.mini_benchmarks.pmc_vqa import COLOURS, ROWS_1, UPTAKE, write_1


def test_version_1(tmp_path):
    first, second = by_id(mini_job("pmc_vqa", tmp_path)).values()
    assert shown(first) == [
        "<image>",
        "Question: What is the uptake pattern in the breast? Choices: A: Diffuse uptake B: Focal uptake C: No uptake"
        " D: Cannot be said The Answer is:",
    ]
    assert first.answers == ["B"] and first.scoring["options"][1] == "Focal uptake"
    assert (first.group, second.group) == ("PMC1_F1.jpg", "PMC1_F2.jpg")
    assert [picture_of(s.media[0]) for s in (first, second)] == [1, 2]


def test_version_2(tmp_path):
    job = mini_job("pmc_vqa_2", tmp_path)
    samples = by_id(job)
    assert list(samples) == ["62", "63"] and samples["62"].group == samples["63"].group == "PMC2_F1_11.jpg"
    assert shown(samples["62"])[1] == (
        "Question: What color is the Golgi complex? Choices: A: Green B: Red C: Light blue D: Yellow The Answer is:"
    )
    assert "altered" not in str(samples["62"].messages), "the caption would tell the answer"
    assert samples["63"].answers == ["D"]


def test_figures_by_hand(tmp_path):
    job = mini_job("pmc_vqa_2", tmp_path)
    assert figures_of(job, gold(job))["mcq_accuracy"] == 1.0
    read = figures_of(job, {"62": "B: Red", "63": "I cannot tell"})
    assert (read["mcq_accuracy"], read["unreadable_rate"]) == (0.5, 0.5)
    wrong = figures_of(job, {"62": "A", "63": "Green"})
    assert (wrong["mcq_accuracy"], wrong["unreadable_rate"]) == (0.0, 0.0)
    nonsense = figures_of(job, lambda _: NONSENSE)
    assert (nonsense["mcq_accuracy"], nonsense["unreadable_rate"]) == (0.0, 1.0)


def test_bad_rows_are_named(tmp_path):
    rows = [
        ROWS_1[0],
        ["PMC1_F1.jpg", "What?", "x", *UPTAKE, "E"],
        ["PMC1_F1.jpg", "What?", "x", *COLOURS[:3], " D: ", "A"],
        ["PMC9.jpg", "What?", "x", *UPTAKE, "A"],
        ["PMC1_F1.jpg", "What?"],
    ]
    write_1(tmp_path, rows)
    job = job_for_task("pmc_vqa", DataPlaces(tmp_path, tmp_path / "cache"))
    results = run_job(job, gold(job))
    errors = [row["error"] for row in results["samples"]]
    assert errors[0] is None and errors[1] == "the gold option is 'E', not one of A, B, C, D"
    assert errors[2] == "option D has no text" and "PMC9.jpg: no such file" in errors[3]
    assert errors[4] == "test_clean.csv:6: not as many cells as columns"
    assert results["tasks"]["pmc_vqa"]["mcq_accuracy"] == 0.2


def test_missing_files_are_named(tmp_path):
    copy = write_1(tmp_path)
    with pytest.raises(FileNotFoundError, match="no test_2.csv"):
        job_for_task("pmc_vqa_2", DataPlaces(tmp_path, tmp_path / "cache"))
    (copy.folder / "images.zip").unlink()
    with pytest.raises(FileNotFoundError, match="neither images.zip nor a folder images or figures"):
        job_for_task("pmc_vqa", DataPlaces(tmp_path, tmp_path / "cache"))
