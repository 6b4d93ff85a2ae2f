"""Video files: the right frames at the right times, whatever the codec, and clear errors for what is no video."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.shared import shared_path
from tests.helpers.video_files import numbers, write_video
from vlm.errors import SampleError
from vlm.media import VideoFrames, load_video
from vlm.media.video import plan_times

av = pytest.importorskip("av", reason="optional package absent: av")
CODES = [("libx264", "yuv420p"), ("libx264", "yuv444p"), ("mpeg4", "yuv420p"), ("libx265", "yuv420p10le")]
# frames of a file, its rate, the request, and the frames that the first release took
SAMPLED = [
    (8, 4, {"max_frames": 8}, [0, 2, 4, 6]),
    (8, 4, {"max_frames": 8, "fps": 4}, [0, 1, 2, 3, 4, 5, 6, 7]),
    (8, 4, {"max_frames": 4, "fps": 4}, [1, 3, 5, 7]),
    (20, 10, {"max_frames": 8}, [0, 5, 10, 15]),
    (30, 10, {"max_frames": 3, "fps": 5}, [5, 15, 25]),
    (30, 10, {"max_frames": 4}, [3, 11, 18, 26]),
    (31, 30, {"max_frames": 8}, [0, 15]),
    (31, 30, {"max_frames": 8, "fps": 8}, [1, 5, 9, 13, 17, 21, 25, 29]),
    (25, 25, {"max_frames": 64, "fps": 100}, list(range(25))),
    (30, 10, {"start": 1.0, "end": 2.0}, [10, 15]),
    (30, 10, {"start": 0.25, "max_frames": 2, "fps": 10}, [9, 23]),
    (30, 1, {"fps": 1, "start": 15, "end": 18}, [15, 16, 17]),
    (24, Fraction(24000, 1001), {"max_frames": 5, "fps": 7}, [2, 7, 12, 16, 21]),
    (1, 10, {}, [0]),
    (7, 3, {"fps": 2, "max_frames": 5}, [0, 1, 3, 4]),
    (30, 2, {"max_frames": 6}, [2, 7, 12, 17, 22, 27]),
]


@pytest.mark.parametrize(("codec", "pix_fmt"), CODES)
def test_frames_and_times(tmp_path: Path, codec: str, pix_fmt: str):
    clip = load_video(write_video(tmp_path / "x.mp4", 20, codec=codec, pix_fmt=pix_fmt), max_frames=8, fps=2)
    assert clip.frames.shape == (4, 3, 64, 64) and str(clip.frames.dtype) == "torch.uint8"
    assert clip.timestamps == pytest.approx([0.0, 0.5, 1.0, 1.5]) and numbers(clip.frames) == [0, 5, 10, 15]


@pytest.mark.parametrize(("count", "rate", "request_", "frames"), SAMPLED)
def test_short_clips_are_sampled_as_ever(tmp_path: Path, count: int, rate, request_: dict, frames: list[int]):
    clip = load_video(write_video(tmp_path / "x.mp4", count, rate=rate), **request_)
    assert numbers(clip.frames) == frames
    assert clip.times == pytest.approx([i / rate for i in frames], abs=1e-3)
    assert clip.timestamps == [i * int(1000 / rate) / 1000 for i in frames]
    assert clip.rate == pytest.approx(float(rate)) and clip.frames.is_contiguous()


def test_one_second_of_thirty_frames_is_shown_as_nvidia_shows_it(tmp_path: Path):
    clip = load_video(write_video(tmp_path / "x.mp4", 62, rate=30), fps=1)
    assert numbers(clip.frames) == [0, 30] and clip.times == [0.0, 1.0] and clip.timestamps == [0.0, 0.99]


def test_range_is_kept(tmp_path: Path):
    path = write_video(tmp_path / "x.mp4", 30)
    for arguments in ({"start": 2.0, "end": 1.0}, {"start": 1.0, "end": 1.0}, {"start": 99.0}, {"start": 3.0}):
        with pytest.raises(SampleError, match="no range") as caught:
            load_video(path, **arguments)
        assert caught.value.reason == "bad_range" and str(path) in str(caught.value)


def test_more_frames_asked_than_there_are_gives_all_once(tmp_path: Path):
    path = write_video(tmp_path / "x.mp4", 13)
    for fps, most in ((10, 13), (1000, 10**5), (10**5, 10**6), (30, 40)):
        assert numbers(load_video(path, fps=fps, max_frames=most).frames) == list(range(13))


def test_plan_of_times():
    assert plan_times(2.0, 8, 2.0, 0.0, None) == [0.0, 0.5, 1.0, 1.5]
    assert plan_times(100.0, 4, 2.0, 0.0, None) == [12.5, 37.5, 62.5, 87.5]
    assert plan_times(0.0, 4, 2.0, 0.0, None) == [0.0]
    assert plan_times(10.0, 4, 1.0, 3.0, 5.0) == [3.0, 4.0]


def test_frames_without_times_of_their_own_have_those_of_the_prompt():
    clip = VideoFrames(np.zeros((2, 3, 4, 4)), [0.0, 0.5])
    assert clip.times == [0.0, 0.5] and clip.rate is None and len(clip) == 2


def test_bad_files_are_named(tmp_path: Path):
    good = write_video(tmp_path / "good.mp4", 20).read_bytes()
    cases = {
        "absent.mp4": (None, "missing_file"),
        "empty.mp4": (b"", "empty_file"),
        "text.mp4": (b"not a video" * 50, "unreadable_video"),
        "cut.mp4": (good[: len(good) // 3], "unreadable_video"),
    }
    for name, (data, reason) in cases.items():
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(SampleError) as caught:
            load_video(path)
        assert caught.value.reason == reason and str(path) in str(caught.value), name


def test_sound_without_pictures_is_refused(tmp_path: Path):
    path = tmp_path / "x.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(SampleError, match="no video stream") as caught:
        load_video(path)
    assert caught.value.reason == "no_frames"


@pytest.mark.parametrize(
    "arguments",
    [{"max_frames": 0}, {"fps": 0}, {"fps": -1}, {"fps": float("nan")}, {"fps": float("inf")}, {"max_pixels": 0}],
)
def test_impossible_settings(tmp_path: Path, arguments: dict):
    with pytest.raises(ValueError, match="positive"):
        load_video(tmp_path / "x.mp4", **arguments)


def test_times_that_are_no_numbers(tmp_path: Path):
    for arguments in ({"start": float("nan")}, {"end": float("inf")}):
        with pytest.raises(ValueError, match="must be seconds"):
            load_video(tmp_path / "x.mp4", **arguments)


def test_a_file_cut_short_before_its_codec_is_described_is_named(tmp_path: Path):
    """The video stream is listed then, without a codec: reading its width would be an AttributeError."""
    data = write_video(tmp_path / "whole.mkv", 3, codec="mpeg4").read_bytes()
    file = tmp_path / "unknown_codec.mkv"
    file.write_bytes(data.replace(b"V_MPEG4/ISO/ASP", b"V_NOSUCH/ISO/AB"))
    assert file.read_bytes() != data
    with pytest.raises(SampleError, match="no decodable video stream") as error:
        load_video(file)
    assert error.value.reason == "unreadable_video" and str(file) in str(error.value)


def test_all_real_videos_have_all_their_frames():
    """10-bit, AV1, 4:4:4, full range, two streams; counted by asking for more frames than there are."""
    folder = shared_path("data/videos")
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    assert len(rows) == 30
    for row in rows:
        clip = load_video(folder / row["video"], max_frames=10**5, fps=1000, max_pixels=48 * 48)
        # the larger of its two streams is read, the label is about the other
        expected = 390 if row["video"] == "torchcodec_nasa_13013.mp4" else row["frames"]
        assert len(clip) == expected, row["video"]
        assert clip.timestamps == sorted(set(clip.timestamps)) and clip.rate is not None, row["video"]
        assert clip.frames.float().std() > 5, f"{row['video']} decodes to a flat picture"


def test_real_videos_keep_their_size():
    folder = shared_path("data/videos")
    for row in map(json.loads, (folder / "labels.jsonl").read_text().splitlines()):
        clip = load_video(folder / row["video"], max_frames=3, fps=2, end=1.6)
        size = (270, 480) if row["video"] == "torchcodec_nasa_13013.mp4" else (row["height"], row["width"])
        assert 1 <= len(clip) <= 3 and clip.frames.shape[1:] == (3, *size), row["video"]
