"""Video-MME with subtitles: those of the frames the model sees, in order; a video without any is asked and counted."""

import pytest

from eval.tasks._subtitled_video import frame_times, frames_taken
from tests.helpers.benchmark_runs import gold, mini_job
from tests.helpers.video_task_runs import run_video_job

ASKED = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles. Respond"
    " with only the letter (A, B, C, or D) of the correct option.\n"
    "Question {id}?\nA. Apples.\nB. Candles.\nC. Berries.\nD. The three kinds are of the same number.\n"
    "The best answer is:"
)
LISTED = "This video's subtitles are listed below: \n"
MANY, TWO = {"max_frames": 64, "fps": 4.0}, {"max_frames": 2, "fps": 4.0}


@pytest.fixture
def job(tmp_path):
    return mini_job("videomme_subtitles", tmp_path)


def test_subtitles_follow_the_frames(job):
    """Two frames of eight seconds lie at 2 and 6 s: the second subtitle (3 to 3.9 s) is on screen at neither."""
    _, rows, _ = run_video_job(job, {}, MANY)
    spoken = "new at six\nthe tree is decorated\nwith candles and apples\n"
    assert rows["001-1"]["prompt"] == "<video>" + LISTED + spoken + ASKED.format(id="001-1")
    _, rows, _ = run_video_job(job, {}, TWO)
    spoken = "new at six\nwith candles and apples\n"
    assert rows["001-2"]["prompt"] == "<video>" + LISTED + spoken + ASKED.format(id="001-2")
    # the command line overrules the processor; without a processor 32 frames are assumed
    _, rows, _ = run_video_job(job, {}, MANY, video={"max_frames": 1})
    assert rows["001-1"]["prompt"] == "<video>" + LISTED + "with candles and apples\n" + ASKED.format(id="001-1")
    _, rows, _ = run_video_job(job, {})
    assert rows["001-1"]["prompt"].count("\n") == 10


def test_planned_times_are_those_of_the_frames_that_are_taken(job):
    from vlm.media.video import load_video

    path = job.dataset.samples[0].media[0]
    for frames in (MANY, TWO, {"max_frames": 5, "fps": 1.0}):
        taken = load_video(path, **frames).times
        assert frame_times(path, **frames) == pytest.approx(taken, abs=0.25), "a frame lasts a quarter of a second"


def test_a_video_without_subtitles_is_asked_and_counted(job):
    figures, rows, _ = run_video_job(job, gold(job), MANY)
    assert rows["601-1"]["prompt"] == "<video>" + LISTED + "No subtitles available\n" + ASKED.format(id="601-1")
    assert rows["601-1"]["score"] == 1.0 and rows["601-1"]["subtitles"] == "none for this video"
    assert figures["without_subtitles"] == 1 and figures["failed"] == 0
    assert rows["002-1"]["prompt"] == "<video>" + LISTED + "\n" + ASKED.format(id="002-1"), "an empty file has none"


def test_opening_the_benchmark_opens_no_video(tmp_path, monkeypatch):
    monkeypatch.setattr("av.open", lambda *args, **_: pytest.fail(f"{args} was opened"))
    assert len(mini_job("videomme_subtitles", tmp_path).dataset.samples) == 4


def test_blind_keeps_the_subtitles(job):
    _, rows, _ = run_video_job(job, {}, TWO, blind=True)
    assert rows["001-1"]["prompt"] == LISTED + "new at six\nwith candles and apples\n" + ASKED.format(id="001-1")


def test_a_damaged_video_or_subtitle_file_costs_its_questions(tmp_path, job):
    from pathlib import Path

    Path(job.dataset.samples[2].media[0]).write_bytes(b"no video")
    Path(job.dataset.samples[0].meta["subtitle_file"]).write_text("nothing like subtitles")
    figures, rows, _ = run_video_job(job, gold(job), TWO)
    assert figures["failed"] == 3 and rows["601-1"]["error"] is None
    assert "no subtitles" in rows["001-1"]["error"] and rows["002-1"]["error"]


def test_frames_of_a_processor_without_a_bound(job):
    from types import SimpleNamespace

    sample = job.task.prepare(job.dataset.samples, _options())[0]
    assert frames_taken(sample, SimpleNamespace(video={"max_frames": None, "fps": 2.0}))["max_frames"] == 128
    assert frames_taken(sample, None) == {"max_frames": 32, "fps": 2.0}


def _options():
    from eval.tasks.base import Options

    return Options()
