"""LongVideoBench: the video alone, and frames with the subtitles between them; a gated repository in pieces."""

import json

import pytest

from eval.jobs import job_for_task
from eval.sources import DataPlaces
from tests.helpers.benchmark_runs import by_id, gold, mini_job, shown
from tests.helpers.mini_benchmarks import edit_rows
from tests.helpers.mini_benchmarks.longvideobench import REPO
from tests.helpers.video_files import numbers
from tests.helpers.video_task_runs import run_video_job

THREE = "What is in 86CxyhFV9MI, 1?\nA. one\nB. two\nC. three\nAnswer with the option's letter from the given choices directly.\n"  # noqa: E501


def test_what_is_asked(tmp_path):
    job = mini_job("longvideobench", tmp_path)
    sample = by_id(job)["86CxyhFV9MI_1"]
    assert shown(sample) == ["<video>", THREE]
    assert sample.answers == ["B"] and sample.group == "86CxyhFV9MI" and sample.kinds == ["15 s", "T3E"]
    assert by_id(job)["86CxyhFV9MI_0"].answers == ["E"] and job.task.max_new_tokens == 32


def test_kinds_and_rule(tmp_path):
    """lmms-eval reads the first capital of A to E: `Based on the video, C.` is B; also where there is no option E."""
    job = mini_job("longvideobench", tmp_path)
    answers = {"86CxyhFV9MI_1": "Based on the video, C.", "86CxyhFV9MI_0": "E", "zz_0": "E. perhaps"}
    figures, rows, _ = run_video_job(job, answers)
    assert figures["mcq_accuracy"] == 0.25 and figures["mcq_accuracy.lmms_eval.longvideobench"] == 0.5
    assert figures["kinds"]["15 s"] == {"mcq_accuracy": 0.5, "n": 2} and figures["kinds"]["T3E"]["mcq_accuracy"] == 0.0


def test_the_authors_file_is_read_where_it_is(tmp_path):
    """`lvb_val.json` has the options in `candidates`; the table beside it is not read then."""
    mini_job("longvideobench", tmp_path)
    row = {
        "video_id": "zz", "id": "zz_7", "video_path": "zz.mp4", "subtitle_path": "zz_en.json", "question": "Q?",
        "question_category": "E2O", "candidates": ["no", "yes"], "correct_choice": 1, "duration_group": 60,
        "duration": 4.0, "starting_timestamp_for_subtitles": 0,
    }  # fmt: skip
    (tmp_path / REPO / "lvb_val.json").write_text(json.dumps([row, {**row, "id": "zz_8"}]))
    job = job_for_task("longvideobench", DataPlaces(tmp_path, tmp_path / "cache"), limit=1)
    (sample,) = job.dataset.samples
    assert sample.id == "zz_7" and sample.answers == ["B"] and sample.kinds == ["60 s", "E2O"]
    assert shown(sample)[1].startswith("Q?\nA. no\nB. yes\nAnswer")
    (tmp_path / REPO / "lvb_val.json").write_text(json.dumps([row, "no record"]))
    good, bad = job_for_task("longvideobench", DataPlaces(tmp_path, tmp_path / "cache")).dataset.samples
    assert not good.problem and bad.problem
    (tmp_path / REPO / "lvb_val.json").write_text("[")
    with pytest.raises(ValueError, match="lvb_val.json: not JSON"):
        job_for_task("longvideobench", DataPlaces(tmp_path, tmp_path / "cache"))


def test_a_hidden_answer_is_named(tmp_path):
    mini_job("longvideobench", tmp_path)
    (table,) = (tmp_path / REPO).rglob("*.parquet")
    edit_rows(table, lambda rows: rows[0].update(correct_choice=-1))
    sample = job_for_task("longvideobench", DataPlaces(tmp_path, tmp_path / "cache")).dataset.samples[0]
    assert sample.problem == "correct_choice -1 is none of 5 options" and sample.kinds == ["15 s", "S2E"]


def test_no_data_says_that_the_repository_is_gated(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise ConnectionError("offline")

    monkeypatch.setattr("huggingface_hub.list_repo_files", no_network)
    with pytest.raises(FileNotFoundError, match="offline") as caught:
        job_for_task("longvideobench", DataPlaces(tmp_path, tmp_path / "cache"))
    told = str(caught.value)
    assert "is gated: accept its terms" in told and "cat videos.tar.part.* | tar -x" in told


def test_subtitles_stand_between_the_frames(tmp_path):
    """Eight seconds, a frame a second at 0, 1, …, 7; the subtitles' clock begins at second 10."""
    job = mini_job("longvideobench_interleaved", tmp_path)
    figures, rows, backend = run_video_job(job, gold(job), {"max_frames": 64, "fps": 4.0})
    frames = "<image>\n"
    assert rows["86CxyhFV9MI_1"]["prompt"] == (
        2 * frames + "a man enters\n" + 3 * frames + "he sits down\n" + 3 * frames + THREE
    )
    assert rows["_vJ4a8aAQpE_0"]["prompt"].startswith("<image>\nhello\n<image>\n<image>\ngoodbye\n<image>\nWhat")
    assert figures["without_subtitles"] == 1 and rows["zz_0"]["prompt"].startswith(4 * frames + "What")
    assert figures["mcq_accuracy"] == 1.0


def test_the_pictures_are_the_frames_at_those_times(tmp_path):
    import numpy as np
    import torch

    job = mini_job("longvideobench_interleaved", tmp_path)
    _, _, backend = run_video_job(job, {}, video={"max_frames": 4, "fps": 1.0})
    (message,) = backend.seen["86CxyhFV9MI_0"]
    pictures = [item["image"] for item in message["content"] if item["type"] == "image"]
    shown_numbers = numbers(torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2))
    assert shown_numbers == [4, 12, 20, 28], "4 frames a second; the middles of four slices are 1, 3, 5, 7 s"
    texts = [item["text"] for item in message["content"] if item["type"] == "text"]
    assert "a man enters\n" not in texts or len(pictures) == 4


def test_blind_interleaving_leaves_the_subtitles(tmp_path):
    job = mini_job("longvideobench_interleaved", tmp_path)
    _, rows, _ = run_video_job(job, {}, blind=True)
    assert rows["86CxyhFV9MI_1"]["prompt"] == "a man enters\nhe sits down\n" + THREE
