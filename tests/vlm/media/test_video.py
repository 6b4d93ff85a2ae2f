"""Video files: the right frames at the right times, whatever the codec, and bounded."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.shared import shared_path
from vlm.errors import SampleError
from vlm.media import load_video
from vlm.media.video import plan_times

av = pytest.importorskip("av", reason="optional package absent: av")
CODES = [("libx264", "yuv420p"), ("libx264", "yuv444p"), ("mpeg4", "yuv420p"), ("libx265", "yuv420p10le")]


def write(
    path: Path, count: int, fps: int = 10, codec: str = "mpeg4", pix_fmt: str = "yuv420p", size: int = 64
) -> Path:
    """A clip of 64 x 64 pixels whose frame i is a grey of 8 * i."""
    try:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=fps)
            stream.width = stream.height = 64
            stream.pix_fmt = pix_fmt
            for i in range(count):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 8 * i, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"optional package absent: encoder {codec} {pix_fmt}: {error}")
    return path


def shades(clip) -> list[int]:
    return [round(float(frame.float().mean()) / 8) for frame in clip.frames]


@pytest.mark.parametrize(("codec", "pix_fmt"), CODES)
def test_frames_and_times(tmp_path: Path, codec: str, pix_fmt: str):
    clip = load_video(write(tmp_path / "x.mp4", 20, codec=codec, pix_fmt=pix_fmt), max_frames=8, fps=2)
    assert clip.frames.shape == (4, 3, 64, 64) and str(clip.frames.dtype) == "torch.uint8"
    assert clip.timestamps == pytest.approx([0.0, 0.5, 1.0, 1.5]) and shades(clip) == [0, 5, 10, 15]


def test_max_frames_spreads_over_the_whole_clip(tmp_path: Path):
    clip = load_video(write(tmp_path / "x.mp4", 30), max_frames=3, fps=5)
    assert shades(clip) == [5, 15, 25] and clip.timestamps == pytest.approx([0.5, 1.5, 2.5])


def test_range_is_kept(tmp_path: Path):
    path = write(tmp_path / "x.mp4", 30)
    clip = load_video(path, fps=2, start=1.0, end=2.0)
    assert shades(clip) == [10, 15] and clip.timestamps == pytest.approx([1.0, 1.5])
    long = write(tmp_path / "long.mp4", 30, fps=1)
    assert shades(load_video(long, fps=1, start=15, end=18)) == [15, 16, 17]
    for arguments in ({"start": 2.0, "end": 1.0}, {"start": 99.0}):
        with pytest.raises(SampleError, match="no range") as caught:
            load_video(path, **arguments)
        assert caught.value.reason == "bad_range" and str(path) in str(caught.value)


def test_jumping_finds_the_frames_that_decoding_everything_finds(tmp_path: Path, monkeypatch):
    path = write(tmp_path / "x.mp4", 30, fps=1)
    slow = load_video(path, max_frames=5, fps=1)
    monkeypatch.setattr("vlm.media.video.SEEK_GAP", 2.0)
    fast = load_video(path, max_frames=5, fps=1)
    assert fast.timestamps == slow.timestamps and shades(fast) == shades(slow) == [3, 9, 15, 21, 27]


def test_one_frame_clip(tmp_path: Path):
    clip = load_video(write(tmp_path / "x.mp4", 1))
    assert len(clip) == 1 and clip.timestamps == [0.0]


def test_plan_of_times():
    assert plan_times(2.0, 8, 2.0, 0.0, None) == [0.0, 0.5, 1.0, 1.5]
    assert plan_times(100.0, 4, 2.0, 0.0, None) == [12.5, 37.5, 62.5, 87.5]
    assert plan_times(0.0, 4, 2.0, 0.0, None) == [0.0]
    assert plan_times(10.0, 4, 1.0, 3.0, 5.0) == [3.0, 4.0]


def test_bad_files_are_named(tmp_path: Path):
    good = write(tmp_path / "good.mp4", 20).read_bytes()
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
    with pytest.raises(SampleError) as caught:
        load_video(path)
    assert caught.value.reason == "no_frames"


@pytest.mark.parametrize("arguments", [{"max_frames": 0}, {"fps": 0}])
def test_impossible_settings(tmp_path: Path, arguments: dict):
    with pytest.raises(ValueError, match="positive"):
        load_video(tmp_path / "x.mp4", **arguments)


def test_all_real_videos_open():
    """10-bit, AV1, 4:4:4, full range, two streams: sizes are those of the largest stream."""
    folder = shared_path("data/videos")
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    assert len(rows) >= 28
    for row in rows:
        clip = load_video(folder / row["video"], max_frames=3, fps=2, end=1.6)
        assert 1 <= len(clip) <= 3 and clip.frames.shape[1] == 3, row["video"]
        assert clip.timestamps == sorted(set(clip.timestamps)) and clip.timestamps[-1] <= row.get("duration", 1e9) + 0.1
        if "width" in row and "nasa" not in row["video"]:
            assert clip.frames.shape[2:] == (row["height"], row["width"]), row["video"]
        assert clip.frames.float().std() > 5, f"{row['video']} decodes to a flat picture"


def test_a_file_cut_short_before_its_codec_is_described_is_named(tmp_path: Path):
    """The video stream is listed then, without a codec: reading its width would be an AttributeError."""
    data = write(tmp_path / "whole.mkv", 3).read_bytes()
    file = tmp_path / "unknown_codec.mkv"
    file.write_bytes(data.replace(b"V_MPEG4/ISO/ASP", b"V_NOSUCH/ISO/AB"))
    assert file.read_bytes() != data
    with pytest.raises(SampleError, match="no decodable video stream") as error:
        load_video(file)
    assert error.value.reason == "unreadable_video" and str(file) in str(error.value)
