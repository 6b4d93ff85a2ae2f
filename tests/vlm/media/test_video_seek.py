"""Sampling long files: jumping finds what decoding everything finds; key frames stand in where samples lie apart."""

import logging
from pathlib import Path

import pytest

from tests.helpers.video_files import bars, numbers, repeat_packets, write_video
from vlm.media import load_video, video_seek
from vlm.media.video_reader import Reader
from vlm.media.video_seek import SNAP_PART, KeyFrames
from vlm.media.video_stream import VideoStream

av = pytest.importorskip("av", reason="optional package absent: av")
RATE, GROUP, SEGMENTS = 30, 125, 4
FORMATS = ("mp4", "mkv", "ts", "flv")


@pytest.fixture(scope="module")
def segments(tmp_path_factory) -> list[Path]:
    """Four clips of one group of pictures each, with B-frames; their frames are numbered through."""
    folder = tmp_path_factory.mktemp("segments")
    options = {"g": "250", "bf": "2", "preset": "veryfast"}
    return [
        write_video(
            folder / f"{k}.mp4",
            GROUP,
            rate=RATE,
            size=(90, 160),
            options=options,
            picture=lambda i, h, w, k=k: bars(k * GROUP + i, h, w),
        )
        for k in range(SEGMENTS)
    ]


@pytest.fixture(scope="module", params=FORMATS)
def minute(request, segments, tmp_path_factory) -> Path:
    """62.5 seconds: the four clips round and round, a key frame every 4.17 s."""
    return repeat_packets(segments, tmp_path_factory.mktemp("long") / f"x.{request.param}", 15)


def shown(times: list[float]) -> list[int]:
    """The numbers that frames at these times show."""
    return [round(time * RATE) % (GROUP * SEGMENTS) for time in times]


def counting_frames(monkeypatch) -> list:
    """The list grows with every frame decoded on the way (not with key frames decoded alone)."""
    decoded, clock = [], Reader._clock
    monkeypatch.setattr(Reader, "_clock", lambda self, frame: decoded.append(1) or clock(self, frame))
    return decoded


@pytest.mark.parametrize(
    "arguments",
    [{"max_frames": 5}, {"start": 40, "end": 60, "max_frames": 4}, {"start": 50.5, "end": 50.9, "fps": 30}],
)
def test_jumping_finds_the_frames_that_decoding_everything_finds(minute: Path, monkeypatch, arguments: dict):
    decoded = counting_frames(monkeypatch)
    fast = load_video(minute, exact=True, **arguments)
    jumped = len(decoded)
    monkeypatch.setattr(video_seek, "MIN_JUMP", 1e9)
    slow = load_video(minute, exact=True, **arguments)
    assert fast.times == slow.times and (fast.frames == slow.frames).all()
    assert numbers(fast.frames) == shown(fast.times)
    assert jumped < 0.7 * (len(decoded) - jumped), "it did not jump"


def test_key_frames_stand_in_where_samples_lie_far_apart(minute: Path, monkeypatch):
    decoded = counting_frames(monkeypatch)
    clip = load_video(minute, max_frames=5)
    assert len(decoded) < 30, "key frames alone should have been decoded"
    planned = [6.25 + 12.5 * i for i in range(5)]
    assert len(clip) == 5 and all(abs(a - b) <= SNAP_PART * 12.5 for a, b in zip(clip.times, planned))
    assert numbers(clip.frames) == shown(clip.times)
    assert all(number % GROUP == 0 for number in numbers(clip.frames)), "not key frames"
    exact = load_video(minute, max_frames=5, exact=True)
    assert numbers(exact.frames) != numbers(clip.frames)
    assert exact.times == pytest.approx([int(time * RATE) / RATE for time in planned], abs=0.07)
    again = load_video(minute, max_frames=5)
    assert again.times == clip.times and (again.frames == clip.frames).all()


def test_key_frames_too_far_away_are_left_alone(segments, tmp_path: Path):
    """One key frame in 25 s: only the samples near one may snap, the others are decoded to."""
    long = write_video(tmp_path / "x.mp4", 500, rate=10, options={"g": "250", "sc_threshold": "0"})
    clip = load_video(long, max_frames=4, fps=1)  # planned at 6.25, 18.75, 31.25, 43.75; key frames at 0 and 25
    assert numbers(clip.frames) == [62, 187, 312, 437]
    clip = load_video(long, max_frames=2, fps=1)  # planned at 12.5 and 37.5, tolerance 6.25
    assert numbers(clip.frames) == [125, 375]
    clip = load_video(long, max_frames=3, fps=1)  # planned at 8.33, 25, 41.67, tolerance 4.17
    assert numbers(clip.frames) == [83, 250, 416]


def test_a_key_frame_outside_the_range_is_not_taken(segments, tmp_path: Path):
    path = repeat_packets(segments, tmp_path / "x.mp4", 15)
    start, end = 16.7, 54.1  # key frames at 16.667 and 54.167 lie just outside
    clip = load_video(path, max_frames=3, start=start, end=end)
    assert all(start <= time < end for time in clip.times) and numbers(clip.frames) == shown(clip.times)


def test_samples_close_together_are_always_exact(segments, tmp_path: Path):
    path = repeat_packets(segments, tmp_path / "x.mp4", 15)
    for most in (7, 12, 200):  # up to 8.9 s apart
        clip, exact = load_video(path, max_frames=most), load_video(path, max_frames=most, exact=True)
        assert clip.times == exact.times and numbers(clip.frames) == shown(clip.times)


def test_key_frames_of_each_container(minute: Path):
    keys = KeyFrames(minute)
    assert keys.before(30.0).time == pytest.approx(29.167, abs=2e-3)
    assert keys.after(30.0).time == pytest.approx(33.333, abs=2e-3)
    assert keys.before(0.5).time == pytest.approx(0, abs=2e-3) and keys.after(62.0) is None
    assert keys.nearest(30.0, 1.0, 0, 99).time == pytest.approx(29.167, abs=2e-3)
    assert keys.nearest(31.3, 1.0, 0, 99) is None and keys.nearest(30.0, 1.0, 29.5, 99) is None
    key = keys.before(30.0)
    with VideoStream(minute) as source:
        time, frame = Reader(source).at(key.time)
    assert time == key.time and (keys.decode(key).to_ndarray() == frame.to_ndarray()).all()
    keys.close()


def broken_seek(how: str):
    def seek(self, time: float, backward: bool = True) -> None:
        if how == "fails":
            raise av.error.PermissionError(1, "Operation not permitted")
        seek.real(self, time + 20.0, backward)

    seek.real = VideoStream.seek
    return seek


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("how", ["fails", "lands behind"])
def test_a_broken_index_costs_time_and_not_frames(segments, tmp_path: Path, monkeypatch, caplog, how: str, exact: bool):
    path = repeat_packets(segments, tmp_path / "x.mp4", 15)
    whole = load_video(path, max_frames=5, exact=True)
    monkeypatch.setattr(KeyFrames, "nearest", lambda *_: None)
    real, broken = VideoStream.seek, broken_seek(how)

    def seek(self, *where):  # the look-up finds key frames, the decoder's own seek does not get there
        (real if self.stream.thread_type.name == "SLICE" else broken)(self, *where)

    monkeypatch.setattr(VideoStream, "seek", seek)
    with caplog.at_level(logging.WARNING):
        clip = load_video(path, max_frames=5, exact=exact)
    assert "in one pass" in caplog.text and str(path) in caplog.text
    assert clip.times == whole.times and (clip.frames == whole.frames).all()


def test_without_any_index_the_file_is_read_in_one_pass(segments, tmp_path: Path, monkeypatch):
    path = repeat_packets(segments, tmp_path / "x.mp4", 15)
    whole = load_video(path, max_frames=5, exact=True)
    monkeypatch.setattr(VideoStream, "seek", broken_seek("fails"))
    clip = load_video(path, max_frames=5)
    assert clip.times == whole.times and (clip.frames == whole.frames).all()


def test_interlaced_pictures_are_whole(tmp_path: Path):
    options = {"x264-params": "interlaced=1:tff=1:keyint=20:scenecut=0", "flags": "+ildct+ilme"}
    path = write_video(tmp_path / "x.ts", 300, rate=5, options=options)
    with VideoStream(path) as source:
        assert source.is_interlaced
    clip, exact = load_video(path, max_frames=4), load_video(path, max_frames=4, exact=True)
    for each in (clip, exact):
        assert numbers(each.frames) == [round(5 * time) for time in each.times] and len(each) == 4
    assert all(number % 20 == 0 for number in numbers(clip.frames)) and clip.times != exact.times


OPEN_GROUPS = "open-gop=1:keyint=40:bframes=3"
CODECS = [
    ("x.ts", "libx264", {"x264-params": OPEN_GROUPS + ":b-pyramid=normal:scenecut=0", "preset": "veryfast"}),
    ("x.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=40", "preset": "veryfast"}),
    ("x.mkv", "libx265", {"x265-params": OPEN_GROUPS + ":log-level=none", "preset": "ultrafast"}),
    ("x.webm", "libvpx-vp9", {"g": "40", "cpu-used": "8", "deadline": "realtime"}),
    ("x.avi", "mpeg4", {"g": "40"}),
    ("x.mpg", "mpeg2video", {"g": "40", "bf": "2"}),
]


@pytest.mark.parametrize(("name", "codec", "options"), CODECS)
def test_every_way_of_making_key_frames(tmp_path: Path, monkeypatch, name: str, codec: str, options: dict):
    """Open groups, pictures refreshed bit by bit, program streams whose timestamps are only right from the start."""
    rate = 25 if name == "x.mpg" else 15  # MPEG-2 knows no 15 a second
    path = write_video(tmp_path / name, 750, rate=rate, codec=codec, options=options)
    requests = ({"max_frames": 3}, {"max_frames": 11}, {"start": 15.0, "end": 20, "max_frames": 5})
    clips = [load_video(path, exact=True, **request) for request in requests]
    snapped = load_video(path, max_frames=3)
    assert numbers(snapped.frames) == [round(time * rate) for time in snapped.times] and len(snapped) == 3
    monkeypatch.setattr(video_seek, "MIN_JUMP", 1e9)
    for clip, request in zip(clips, requests):
        slow = load_video(path, exact=True, **request)
        assert clip.times == pytest.approx(slow.times) and (clip.frames == slow.frames).all()
        assert numbers(clip.frames) == [round(time * rate) for time in clip.times]
