"""VQA-RAD: both layouts, the split into open and closed, and denominators that keep wrong answers."""

import json

import pytest

from eval.jobs import job_for_task
from eval.sources import DataPlaces
from tests.helpers.benchmark_runs import NONSENSE, by_id, figures_of, gold, mini_job, run_job, shown
from tests.helpers.mini_benchmarks import edit_rows, picture_of
from tests.helpers.mini_benchmarks.vqa_rad import ORIGINAL, original_row, write_hub_copy, write_original
from tests.helpers.shared import shared_path


def original_job(tmp_path, rows=ORIGINAL):
    write_original(tmp_path, rows)
    return job_for_task("vqa_rad", DataPlaces(tmp_path, tmp_path / "cache"))


def test_original_layout(tmp_path):
    samples = by_id(original_job(tmp_path))
    assert list(samples) == ["11", "12", "13", "14", "15"]  # of the test file alone
    assert shown(samples["12"]) == [
        "<image>",
        "Is the heart enlarged?\nAnswer the question using a single word or phrase.",
    ]
    assert [s.meta["answer_type"] for s in samples.values()] == ["closed", "closed", "closed", "open", "open"]
    assert {s.meta["answer_type_from"] for s in samples.values()} == {"dataset"}
    assert samples["14"].answers == ["4"]
    assert samples["11"].group == samples["12"].group == "synpic1.jpg" != samples["13"].group
    assert [picture_of(s.media[0]) for s in samples.values()] == [1, 1, 2, 2, 2]
    assert samples["13"].kinds == ["head", "modality MRI"]


def test_hub_layout_derives_the_answer_type(tmp_path):
    samples = by_id(mini_job("vqa_rad", tmp_path))
    types = [(s.meta["answer_type"], s.meta["answer_type_from"]) for s in samples.values()]
    assert types == [("closed", "gold answer"), ("open", "gold answer")] * 2
    first, second, third, _ = samples.values()
    assert first.group == second.group != third.group and picture_of(third.media[0]) == 2


def test_figures_by_hand(tmp_path):
    answers = {
        "11": "Yes, there is.",  # right by its first yes/no word, not word by word
        "12": "yes",  # wrong, and it stays in the denominator
        "13": "left.",  # a closed question without yes or no: the whole answer, marks aside
        "14": "four",  # a number word
        "15": "the air",  # one of two words: recall 1/2, precision 1/1
    }
    results = run_job(original_job(tmp_path), answers)
    figures = results["tasks"]["vqa_rad"]
    assert figures["closed_accuracy"] == round(2 / 3, 4)
    assert figures["closed_accuracy_strict"] == figures["closed_accuracy_vila_m3"] == 0.0
    assert figures["open_recall"] == 0.75 and figures["open_f1"] == round((1 + 2 / 3) / 2, 4)
    assert figures["exact_match"] == 0.0
    assert figures["n"] == 5 and figures["questions_by_type"] == {"closed": 3, "open": 2}
    rows = {row["id"]: row for row in results["samples"]}
    assert rows["12"]["score"] == 0.0 == rows["12"]["scores"]["exact_match_closed.llava_med"]
    assert rows["12"]["scores"]["token_recall"] is None is rows["15"]["scores"]["exact_match_closed.llava_med"]
    assert rows["15"]["score"] == 0.5 and rows["15"]["answer_type"] == "open"
    chest, head = figures["kinds"]["chest"], figures["kinds"]["head"]
    assert (chest["closed_accuracy"], chest["open_recall"], chest["n"]) == (0.5, 0.5, 3)
    assert (head["closed_accuracy"], head["open_recall"]) == (1.0, None)
    assert figures["kinds"]["modality CT"]["open_recall"] == 1.0


@pytest.mark.parametrize("reply", ["no", "normal", "not at all", "I do not know", ""])
def test_wrong_closed_answers_never_leave_the_denominator(tmp_path, reply):
    rows = [original_row(i, 1, "Is it?", gold, "CLOSED") for i, gold in enumerate(["yes", "yes", "no", "no"])]
    figures = figures_of(original_job(tmp_path, rows), {"0": "yes", "1": reply, "2": "no", "3": reply})
    assert figures["closed_accuracy"] == (0.75 if reply == "no" else 0.5)
    assert figures["questions_by_type"] == {"closed": 4, "open": 0} and figures["open_recall"] is None


def test_a_model_that_knows_and_one_that_does_not(tmp_path):
    job = original_job(tmp_path)
    names = ("closed_accuracy", "open_recall", "open_f1", "exact_match", "closed_accuracy_strict")
    knowing, silly = figures_of(job, gold(job)), figures_of(job, lambda _: NONSENSE)
    assert [knowing[name] for name in names] == [1.0] * 5 and [silly[name] for name in names] == [0.0] * 5


def test_bad_rows_are_named_and_wrong_where_they_belong(tmp_path):
    rows = [
        original_row(1, 1, "Is it?", "yes", "CLOSED"),
        original_row(2, 7, "Is it?", "yes", "CLOSED"),  # no such picture
        original_row(3, 1, "Is it?", "yes", "BOTH"),
        original_row(4, 1, "Where?", None, "OPEN"),
        original_row(5, 1, " ", "yes", "CLOSED"),
        {**original_row(6, 1, "Is it?", "yes", "CLOSED"), "image_name": "../../secret.jpg"},
        "no object",
    ]
    job = original_job(tmp_path, rows)
    results = run_job(job, gold(job))
    errors = {row["id"]: row["error"] for row in results["samples"] if row["error"]}
    assert "synpic7.jpg: no such file" in errors["2"] and "no gold answer" in errors["4"]
    assert "'BOTH' is neither OPEN nor CLOSED" in errors["vqa_rad-2"] and "no question" in errors["vqa_rad-4"]
    assert "leaves the data folder" in errors["6"] and "testset.json[6]: not a JSON object" in errors["vqa_rad-6"]
    figures = results["tasks"]["vqa_rad"]
    # closed: 1, 2 and 6, and the three of which no more is known; open: 4 and those three
    assert figures["closed_accuracy"] == round(1 / 6, 4) and figures["open_recall"] == 0.0 and figures["failed"] == 6
    assert {row["id"]: row["scores"]["token_recall"] for row in results["samples"]}["2"] is None


def test_bad_rows_of_the_hub_copy(tmp_path):
    path = write_hub_copy(tmp_path)
    edit_rows(path, lambda rows: (rows[0].update(image=None), rows[1].update(answer=None)))
    job = job_for_task("vqa_rad", DataPlaces(tmp_path, tmp_path / "cache"))
    assert "no picture" in job.dataset.samples[0].problem and job.dataset.samples[0].meta["answer_type"] == "closed"
    # Row 1 has no gold answer to tell its type by: it is wrong among the closed and among the open questions.
    figures = figures_of(job, gold(job))
    assert (figures["closed_accuracy"], figures["open_recall"]) == (round(1 / 3, 4), 0.5)
    edit_rows(path, lambda rows: None, drop=["question"])
    job = job_for_task("vqa_rad", DataPlaces(tmp_path, tmp_path / "cache"))
    assert {s.problem for s in job.dataset.samples} == {"missing column 'question'"}


def test_two_qa_files_or_a_broken_one(tmp_path):
    folder = write_original(tmp_path)
    (folder / "old_testset.json").write_text("[]")
    with pytest.raises(ValueError, match="several QA files .*: old_testset.json, testset.json"):
        job_for_task("vqa_rad", DataPlaces(tmp_path, tmp_path / "cache"))
    (folder / "old_testset.json").unlink()
    (folder / "testset.json").write_text("{}")
    with pytest.raises(ValueError, match="testset.json: should hold a list of records, holds dict"):
        job_for_task("vqa_rad", DataPlaces(tmp_path, tmp_path / "cache"))


def test_images_exchanged(tmp_path):
    figures = figures_of(mini_job("vqa_rad", tmp_path), gold(mini_job("vqa_rad", tmp_path)), controls=True)
    assert figures["controls"] == {"images_exchanged": 1.0}  # the script does not look


def test_the_real_texts_split_as_published(tmp_path):
    """The release's own files: 451 questions, 272 closed, 179 open; "CLOSED " and integers in the training file."""
    folder = tmp_path / "vqa_rad"
    folder.symlink_to(shared_path("data/vqarad_mini"))
    samples = job_for_task("vqa_rad", DataPlaces(tmp_path, tmp_path / "cache")).dataset.samples
    types = [s.meta["answer_type"] for s in samples]
    assert (len(types), types.count("closed"), types.count("open")) == (451, 272, 179)
    assert len({s.group for s in samples}) == 203
    assert sum(s.problem is None for s in samples) == 6  # the two pictures that are there
    closed = [s for s in samples if s.meta["answer_type"] == "closed"]
    assert sum(s.answers[0].strip().lower() in ("yes", "no") for s in closed) == 251

    train = json.loads((folder / "vqarad_trainset.json").read_text())
    assert sum(row["answer_type"] == "CLOSED " for row in train) == 2
    assert sum(isinstance(row["answer"], int) for row in train) == 10
    write_original(tmp_path / "train", train)
    samples = job_for_task("vqa_rad", DataPlaces(tmp_path / "train", tmp_path / "cache")).dataset.samples
    types = [s.meta["answer_type"] for s in samples]
    assert (len(types), types.count("closed"), types.count("open")) == (3064, 1823, 1241)
    assert all(isinstance(answer, str) for s in samples for answer in s.answers)
