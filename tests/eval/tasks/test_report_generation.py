"""Report generation: both layouts, references as written, corpus figures under the name of their package."""

import json
import math

import pytest

from eval.jobs import job_for_task
from eval.sources import DataPlaces
from tests.helpers.benchmark_runs import NONSENSE, by_id, figures_of, gold, mini_job, run_job, shown
from tests.helpers.mini_benchmarks import picture_of
from tests.helpers.mini_benchmarks.report_generation import CLEAR, NORMAL, write, write_lines

FIGURES = (
    *(f"corpus_bleu{order}{variant}" for variant in ("", "_coco") for order in (1, 2, 3, 4)),
    "rouge_l",
    "rouge_l_coco",
)


def lines_job(tmp_path, *studies):
    write_lines(tmp_path, [study if isinstance(study, str) else json.dumps(study) for study in studies])
    return job_for_task("report_generation", DataPlaces(tmp_path, tmp_path / "cache"))


def test_annotation_layout(tmp_path):
    samples = by_id(mini_job("report_generation", tmp_path))
    assert list(samples) == ["CXR1_IM-0001", "CXR2_IM-0652"]  # the test split alone
    assert shown(samples["CXR1_IM-0001"]) == ["<image>", "<image>", "Describe the image in detail."]
    assert [picture_of(path) for path in samples["CXR1_IM-0001"].media] == [1, 2]
    assert samples["CXR1_IM-0001"].answers == [NORMAL] and samples["CXR1_IM-0001"].group == "CXR1_IM-0001"


def test_lines_layout(tmp_path):
    study = {"id": 1, "image": "CXR2_IM-0652/0.png", "findings": f" {CLEAR}\n", "impression": "Normal.", "group": "p1"}
    several = {"id": 2, "images": ["CXR1_IM-0001/0.png", "CXR1_IM-0001/1.png"], "findings": NORMAL}
    first, second = lines_job(tmp_path, study, several).dataset.samples
    assert first.answers == [f" {CLEAR}\n"], "a reference is never rewritten"
    assert (first.meta["impression"], first.group, second.group) == ("Normal.", "p1", "2")
    assert shown(first) == ["<image>", "Describe the image in detail."] and len(second.media) == 2


def test_figures_by_hand(tmp_path):
    """Study 1 says `right` for `left`; study 2 says the first sentence of two."""
    job = mini_job("report_generation", tmp_path)
    answers = {"CXR1_IM-0001": NORMAL.replace("left", "right"), "CXR2_IM-0652": "The lungs are clear."}
    figures = figures_of(job, answers)
    # 13a tokens (full stops are tokens): lengths 15 + 5 of 15 + 8, matching 1-grams 14 + 5, 2-grams 12 + 4 of 14 + 4
    brevity = math.exp(1 - 23 / 20)
    assert figures["corpus_bleu1"] == round(brevity * 19 / 20, 4)
    assert figures["corpus_bleu2"] == round(brevity * math.sqrt(19 / 20 * 16 / 18), 4)
    # words by blanks: 13 + 4 of 13 + 6, matching 12 + 4
    assert figures["corpus_bleu1_coco"] == round(math.exp(1 - 19 / 17) * 16 / 17, 4)
    # words without marks: 12 of 13; 4 of 6 found, all of 4 right
    assert figures["rouge_l"] == round((12 / 13 + 0.8) / 2, 4)
    f = (1 + 1.2**2) * 1 * (4 / 6) / (4 / 6 + 1.2**2 * 1)
    assert figures["rouge_l_coco"] == round((12 / 13 + f) / 2, 4)
    assert figures["n"] == 2 and job.task.headline == "corpus_bleu4"
    assert set(FIGURES) <= set(figures)


def test_a_model_that_knows_and_one_that_does_not(tmp_path):
    job = mini_job("report_generation", tmp_path)
    knowing, silly = figures_of(job, gold(job)), figures_of(job, lambda _: NONSENSE)
    assert [knowing[name] for name in FIGURES] == [1.0] * 10 and [silly[name] for name in FIGURES] == [0.0] * 10


def test_bad_rows_are_named_and_cost_brevity(tmp_path):
    fine = {"id": 1, "image": "CXR2_IM-0652/0.png", "findings": CLEAR}
    job = lines_job(
        tmp_path, fine, {**fine, "id": 2, "image": "x.png"}, {**fine, "id": 3, "findings": ""}, "{oh",
        {"id": 5, "findings": CLEAR}, {**fine, "id": 6, "image": "../annotation.json"},
    )  # fmt: skip
    results = run_job(job, gold(job))
    errors = [row["error"] for row in results["samples"]]
    assert errors[0] is None and "x.png: no such file" in errors[1] and "no gold answer" in errors[2]
    assert errors[3].startswith("test.jsonl:4: not JSON") and errors[4] == "study 5: no image_path, images or image"
    assert "leaves the data folder" in errors[5]
    assert results["tasks"]["report_generation"]["rouge_l"] == round(1 / 6, 4)


def test_a_study_that_fails_keeps_its_length_in_the_denominator(tmp_path):
    folder = write(tmp_path)
    (folder / "images/CXR1_IM-0001/1.png").unlink()
    job = job_for_task("report_generation", DataPlaces(tmp_path, tmp_path / "cache"))
    whole = figures_of(job, lambda _: CLEAR)
    assert job.dataset.samples[0].problem and whole["failed"] == 1
    assert whole["corpus_bleu1"] == round(math.exp(1 - (15 + 8) / 8), 4)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="needs annotation.json .* or test.jsonl in .*report_generation"):
        job_for_task("report_generation", DataPlaces(tmp_path, tmp_path / "cache"))
    (write(tmp_path) / "annotation.json").write_text('{"train": []}')
    with pytest.raises(ValueError, match="annotation.json: holds no list 'test'"):
        job_for_task("report_generation", DataPlaces(tmp_path, tmp_path / "cache"))
