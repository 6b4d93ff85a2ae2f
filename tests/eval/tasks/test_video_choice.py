"""What holds for all video benchmarks: gold is 1.0, nonsense 0.0, and a video that is not there costs its questions."""

import shutil
from pathlib import Path

import pytest

from eval.data import media_items
from eval.jobs import job_for_task
from eval.sources import DataPlaces
from eval.tasks import get_task, tasks
from eval.tasks._video_choice import VideoChoice, gold_letter, without_letter
from tests.helpers.benchmark_runs import gold, mini_job
from tests.helpers.mini_benchmarks import write_mini
from tests.helpers.video_task_runs import run_video_job

NAMES = [name for name in tasks if issubclass(get_task(name), VideoChoice)]
SCORED = [name for name in NAMES if name != "egoschema_full"]


def test_these_are_the_video_benchmarks():
    assert {"videomme", "videomme_subtitles", "mlvu", "mlvu_test", "longvideobench", "egoschema"} < set(NAMES)


@pytest.mark.parametrize("name", SCORED)
def test_who_knows_is_right_and_nonsense_is_wrong_and_unreadable(name, tmp_path):
    job = mini_job(name, tmp_path)
    figures, rows, _ = run_video_job(job, gold(job))
    for figure in job.task.aggregates():
        assert figures[figure] == (0.0 if figure == "unreadable_rate" else 1.0)
    figures, rows, _ = run_video_job(job, {})
    for figure in job.task.aggregates():
        assert figures[figure] == (1.0 if figure == "unreadable_rate" else 0.0)
    assert all(Path(path).is_file() for row in rows.values() for path in row["media"])
    assert figures["failed"] == 0 and {row["control"] for row in rows.values()} == {None}


@pytest.mark.parametrize("name", NAMES)
def test_frames_of_the_command_line_reach_the_video(name, tmp_path):
    job = mini_job(name, tmp_path)
    _, rows, backend = run_video_job(job, {}, video={"max_frames": 3, "fps": 0.5})
    for messages in backend.seen.values():
        for item in media_items(messages):
            assert item["type"] == "image" or (item["max_frames"], item["fps"]) == (3, 0.5)
    assert len(rows) == len(job.dataset.samples)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_video_is_named_and_fails_its_questions_only(name, tmp_path):
    """... under the question's own id, kind and group, so that it counts where it belongs."""
    write_mini(name, tmp_path)
    folder = get_task(name).source.local_folder(tmp_path, name)
    whole = job_for_task(name, DataPlaces(tmp_path, tmp_path / "cache")).dataset.samples
    unpacked = next((tmp_path / "cache" / "unpacked").rglob(Path(whole[0].media[0]).name)).parent
    for archive in [*folder.glob("video*.zip"), *folder.glob("videos.tar*")]:
        archive.unlink()
    for video in sorted(unpacked.parent.parent.rglob("*.m[pk][4v]")):
        if video.name != Path(whole[0].media[0]).name:
            shutil.copy(video, folder / video.name)
    job = job_for_task(name, DataPlaces(tmp_path, tmp_path / "other"))
    figures, rows, _ = run_video_job(job, gold(job))
    assert list(rows) == [sample.id for sample in whole]
    lost = Path(whole[0].media[0]).stem
    for sample in whole:
        row = rows[sample.id]
        assert (row["kind"], row["group"]) == (sample.kind, sample.group)
        if sample.media == whole[0].media:
            assert lost in row["error"] and row["score"] == (None if sample.unscored else 0.0)
        else:
            assert row["error"] is None
    assert 0 < figures["failed"] < len(whole)


def test_a_copy_without_any_video_is_refused_with_the_command(tmp_path):
    write_mini("egoschema", tmp_path)
    for archive in (tmp_path / "lmms-eval/egoschema").glob("*.zip"):
        archive.unlink()
    with pytest.raises(
        FileNotFoundError, match="no .mp4 files and no archives.*videos_chunked_[*].zip.*\n.*hf download"
    ):
        job_for_task("egoschema", DataPlaces(tmp_path, tmp_path / "cache"))


def test_limit_takes_out_only_the_videos_it_needs(tmp_path):
    write_mini("videomme", tmp_path)
    cache = tmp_path / "cache"
    job_for_task("videomme", DataPlaces(tmp_path, cache), limit=2)  # two questions on one video
    assert [path.name for path in cache.rglob("*.m[pk][4v]")] == ["fFjv93ACGo8.mp4"]
    (tmp_path / "lmms-eval/Video-MME/videos_chunked_02.zip").write_bytes(b"half a down")
    assert not job_for_task("videomme", DataPlaces(tmp_path, tmp_path / "new"), limit=2).dataset.samples[1].problem


def test_an_archive_that_would_write_elsewhere_fails_its_questions(tmp_path):
    from tests.helpers.mini_benchmarks._clips import zipped

    write_mini("videomme", tmp_path)
    bad = tmp_path / "lmms-eval/Video-MME/videos_chunked_02.zip"
    bad.write_bytes(zipped({"../../N1cdUjctpG8.mp4": b"evil", "data/-lN.Dm7Kbo4.mkv": b"fine"}))
    samples = job_for_task("videomme", DataPlaces(tmp_path, tmp_path / "cache")).dataset.samples
    assert [bool(sample.problem) for sample in samples] == [False, False, True, True]
    assert all("../../N1cdUjctpG8.mp4 would leave" in sample.problem for sample in samples[2:])
    assert not list(tmp_path.rglob("N1cdUjctpG8.mp4"))


def test_gold_letters_and_option_texts():
    assert gold_letter(" C", ["a", "b", "c"]) == "C" and gold_letter("red", ["blue", "red", "red"]) == "B"
    with pytest.raises(ValueError, match="gold answer 'D' is none of the options A, B"):
        gold_letter("D", ["a", "b"])
    assert without_letter("A. Apples.") == "Apples." and without_letter("u.s. army") == "u.s. army"
