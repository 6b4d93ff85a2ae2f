"""Files whose headers lie, whose frames come at odd times, lie on their side, or are not all of one size."""

import io
import logging
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.video_files import bars, numbers, repeat_packets, write_video
from vlm.errors import SampleError
from vlm.media import load_video, video_pixels
from vlm.media.video_pixels import shown_size, upright
from vlm.media.video_reader import Reader
from vlm.media.video_stream import VideoStream, first_rate

av = pytest.importorskip("av", reason="optional package absent: av")
EVERYTHING = {"max_frames": 10**4, "fps": 1000}
STAMPS = [0, 0.02, 0.4, 0.45, 0.5, 1.2, 1.3, 2.0, 2.01, 2.9]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_varying_rate_shows_what_is_on_screen_and_its_true_time(tmp_path: Path, suffix: str):
    path = write_video(tmp_path / f"x.{suffix}", len(STAMPS), stamps=STAMPS)
    clip = load_video(path, fps=2, max_frames=8)
    expected = [max(i for i, stamp in enumerate(STAMPS) if stamp <= step / 2) for step in range(6)]
    assert numbers(clip.frames) == sorted(set(expected)) and len(set(expected)) == 5
    assert clip.rate is None and clip.timestamps == clip.times
    assert clip.times == pytest.approx([STAMPS[i] for i in sorted(set(expected))], abs=1e-3)
    assert max(abs(a - round(10 * a) / 10) for a in clip.times) > 5e-3, "the times should tell it from 10 a second"
    whole = load_video(path, **EVERYTHING)
    assert numbers(whole.frames) == list(range(10)) and whole.times == pytest.approx(STAMPS, abs=1e-3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("first", [5.0, 0.3])
def test_a_first_timestamp_that_is_not_zero(tmp_path: Path, suffix: str, first: float):
    path = write_video(tmp_path / f"x.{suffix}", 20, stamps=[first + i / 10 for i in range(20)])
    clip = load_video(path, **EVERYTHING)
    tenths = [i / 10 for i in range(20)]
    assert numbers(clip.frames) == list(range(20)) and clip.times == pytest.approx(tenths, abs=2e-3)
    assert clip.timestamps == tenths
    assert numbers(load_video(path, fps=2).frames)[:4] == [0, 5, 10, 15]
    assert numbers(load_video(path, start=1.0, end=1.5, fps=10).frames) == [10, 11, 12, 13, 14]


def test_negative_timestamps(tmp_path: Path):
    """Frames before zero are cut off by an MP4's edit list (no player shows them), kept by other containers."""
    stamps = [i / 10 - 1 for i in range(20)]
    cut = load_video(write_video(tmp_path / "x.mp4", 20, stamps=stamps), **EVERYTHING)
    assert numbers(cut.frames) == list(range(10, 20)) and cut.times == pytest.approx([i / 10 for i in range(10)])
    kept = load_video(write_video(tmp_path / "x.mkv", 20, stamps=stamps), **EVERYTHING)
    assert numbers(kept.frames) == list(range(20)) and kept.times == pytest.approx([i / 10 for i in range(20)])


@pytest.mark.parametrize(("suffix", "rate"), [("h264", 10), ("h264", 25), ("mjpeg", 25)])
def test_raw_streams_without_timestamps(tmp_path: Path, suffix: str, rate: int):
    coded = {"codec": "libx264", "options": {"bf": "2", "preset": "veryfast"}}
    if suffix == "mjpeg":
        coded = {"codec": "mjpeg", "pix_fmt": "yuvj420p"}
    path = write_video(tmp_path / f"x.{suffix}", 50, rate=rate, **coded)
    with VideoStream(path) as source:
        assert not source.timed and source.rate == rate
    clip = load_video(path, fps=1, max_frames=64)
    assert numbers(clip.frames) == list(range(0, 50, rate)) and clip.times == list(range(len(clip)))
    assert numbers(load_video(path, fps=100, max_frames=10**4).frames) == list(range(50))
    assert numbers(load_video(path, start=1, end=1.5, fps=rate).frames)[0] == rate


@pytest.mark.parametrize(("codec", "complaint"), [("libx264", True), ("mpeg4", False)])
def test_avi_whose_timestamps_know_nothing_of_b_frames(tmp_path: Path, caplog, codec: str, complaint: bool):
    path = write_video(tmp_path / "x.avi", 40, codec=codec, options={"bf": "2", "preset": "veryfast"})
    with caplog.at_level(logging.WARNING):
        clip = load_video(path, **EVERYTHING)
    assert numbers(clip.frames) == list(range(40)) and clip.times == pytest.approx([i / 10 for i in range(40)])
    assert ("run backwards" in caplog.text) == complaint


def test_one_frame(tmp_path: Path):
    for suffix in ("mp4", "mkv", "ts", "h264", "avi"):
        clip = load_video(write_video(tmp_path / f"x.{suffix}", 1))
        assert len(clip) == 1 and clip.timestamps == [0.0] and clip.rate, suffix


def test_rates_of_headers():
    useless = (None, 0, Fraction(0), float("nan"), float("inf"))
    assert first_rate(*useless, Fraction(30000, 1001)) == pytest.approx(29.97, abs=1e-3)
    assert first_rate(None, 0) == 25.0


def marked(number: int, height: int, width: int) -> np.ndarray:
    """Grey with a red top left corner and a blue top right one."""
    picture = np.full((height, width, 3), 128, np.uint8)
    picture[: height // 2, : width // 4] = (255, 0, 0)
    picture[: height // 2, -(width // 4) :] = (0, 0, 255)
    return picture


def corners(frame: torch.Tensor) -> str:
    """Colours of top left, top right, bottom right, bottom left: "r", "b" or "-"."""
    height, width = frame.shape[1:]
    spots = [frame[:, y, x].tolist() for y, x in ((8, 8), (8, width - 8), (height - 8, width - 8), (height - 8, 8))]
    return "".join("r" if r > 200 and b < 60 else "b" if b > 200 and r < 60 else "-" for r, _, b in spots)



@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("degrees", [0, 90, -90, 180])
def test_rotation_metadata(tmp_path: Path, suffix: str, degrees: int):
    """Counterclockwise, as the display matrix says it: a picture held at -90 (most phones) is turned clockwise."""
    path = write_video(
        tmp_path / f"x.{suffix}",
        3,
        size=(64, 96),
        picture=marked,
        prepare=lambda _, stream: stream.set_display_rotation(degrees) if degrees else None,
    )
    frame = load_video(path).frames[0]
    assert frame.shape == ((3, 64, 96) if degrees in (0, 180) else (3, 96, 64))
    assert corners(frame) == {0: "rb--", 90: "b--r", -90: "-rb-", 180: "--rb"}[degrees]


def test_a_phone_header_written_by_hand(tmp_path: Path):
    """The matrix of a track header, in big-endian 16.16: 90 degrees clockwise, as phones held upright write it."""
    path = write_video(tmp_path / "x.mp4", 3, size=(64, 96), picture=marked)
    data = path.read_bytes()
    straight = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    at = data.index(straight, data.index(b"tkhd"))
    path.write_bytes(data[:at] + turned + data[at + 36 :])
    frame = load_video(path).frames[0]
    assert frame.shape == (3, 96, 64) and corners(frame) == "-rb-"


def test_mirrored_matrices():
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, axis=2)
    one = 1 << 16

    def shown(a, b, c, d):
        return upright(picture, struct.pack("=9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))[..., 0].tolist()

    assert shown(one, 0, 0, one) == [[0, 1, 2], [3, 4, 5]]
    assert shown(-one, 0, 0, one) == [[2, 1, 0], [5, 4, 3]]
    assert shown(one, 0, 0, -one) == [[3, 4, 5], [0, 1, 2]]
    assert shown(0, one, one, 0) == [[0, 3], [1, 4], [2, 5]]
    assert shown(0, one, -one, 0) == [[3, 0], [4, 1], [5, 2]]
    assert upright(picture, None) is picture and upright(picture, b"short") is picture


@pytest.mark.parametrize(
    ("aspect", "shape"), [(Fraction(4, 3), (48, 128)), (Fraction(3, 4), (64, 96)), (None, (48, 96))]
)
def test_pixels_that_are_not_square(tmp_path: Path, aspect, shape: tuple[int, int]):
    path = write_video(tmp_path / "x.mp4", 3, size=(48, 96), aspect=aspect, picture=marked)
    frame = load_video(path).frames[0]
    assert frame.shape[1:] == shape and corners(frame) == "rb--"


def test_oblong_pixels_on_their_side(tmp_path: Path):
    """The aspect is that of the stored picture: it is made square first, and turned then."""
    path = write_video(
        tmp_path / "x.mp4",
        3,
        size=(48, 96),
        aspect=Fraction(4, 3),
        picture=marked,
        prepare=lambda _, stream: stream.set_display_rotation(-90),
    )
    assert load_video(path).frames[0].shape == (3, 128, 48)


def cover(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_cover_is_no_video(tmp_path: Path):
    """Attached to a film it is passed over though it is larger; music with a cover has no video."""

    def attach(container, _):
        container.add_attachment("cover.jpg", "image/jpeg", cover(300, 300))

    path = write_video(tmp_path / "film.mkv", 10, prepare=attach)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
    clip = load_video(path, **EVERYTHING)
    assert numbers(clip.frames) == list(range(10)) and clip.frames.shape[2:] == (64, 64)

    picture = cover(64, 64)
    body = b"\0image/jpeg\0\x03\0" + picture
    frame = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    size = bytes((len(frame) >> shift) & 127 for shift in (21, 14, 7, 0))
    sound = io.BytesIO()
    with av.open(sound, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16p", layout="mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples))
        container.mux(stream.encode())
    path = tmp_path / "song.mp3"
    path.write_bytes(b"ID3\x03\0\0" + size + frame + sound.getvalue())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1, "the cover should be listed as a stream"
    with pytest.raises(SampleError, match="only a cover picture") as caught:
        load_video(path)
    assert caught.value.reason == "no_frames"


def test_the_largest_of_several_streams_is_read(tmp_path: Path):
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        streams = []
        for height, width in ((32, 32), (64, 64)):
            stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            streams.append(stream)
        for i in range(12):
            for k, stream in enumerate(streams):
                picture = bars(i if k else 99, stream.height, stream.width)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    clip = load_video(path, **EVERYTHING)
    assert clip.frames.shape[2:] == (64, 64) and numbers(clip.frames) == list(range(12))


@pytest.mark.parametrize("suffix", ["mkv", "flv", "mp4"])
def test_a_file_that_ends_before_its_header_says(tmp_path: Path, caplog, suffix: str):
    """Cut off: the samples are spread over what is there, and the log says so."""
    path = tmp_path / f"x.{suffix}"
    made = write_video(path, 300, options={"g": "20", "movflags": "faststart"} if suffix == "mp4" else {"g": "20"})
    data = made.read_bytes()
    if suffix == "mp4":  # the index is written at the end: move it in front, as files made for the web have it
        data = faststart(data)
    path.write_bytes(data[: len(data) // 2])
    with caplog.at_level(logging.WARNING):
        clip = load_video(path, max_frames=6, fps=2)
    assert "not at 30.00 s" in caplog.text and str(path) in caplog.text
    end = clip.times[-1] + (clip.times[1] - clip.times[0]) / 2
    assert len(clip) == 6 and end < 20 and numbers(clip.frames) == [round(10 * time) for time in clip.times]
    steps = np.diff(clip.times)
    assert steps.max() - steps.min() < 0.25, "not spread evenly"
    with pytest.raises(SampleError, match="no range") as caught:
        load_video(path, start=25.0, fps=1)
    assert caught.value.reason == "bad_range"


def faststart(data: bytes) -> bytes:
    """An MP4 (ftyp, free, mdat, moov) with its index moved before the data and the offsets in it corrected."""
    boxes, at = {}, 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        boxes[kind], at = data[at : at + size], at + size
    moov = bytearray(boxes[b"moov"])
    at = moov.index(b"stco") + 8
    (count,) = struct.unpack(">I", moov[at : at + 4])
    for i in range(count):
        where = slice(at + 4 + 4 * i, at + 8 + 4 * i)
        moov[where] = struct.pack(">I", struct.unpack(">I", moov[where])[0] + len(moov))
    return boxes[b"ftyp"] + bytes(moov) + boxes.get(b"free", b"") + boxes[b"mdat"]


def test_damage_in_the_middle_costs_the_damaged_frames(tmp_path: Path, caplog):
    path = write_video(tmp_path / "x.mkv", 300, codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    place = len(data) // 2
    for _ in range(5):  # five frames lose their JPEG headers
        place = data.index(b"\xff\xd8\xff", place)
        data[place : place + 300] = bytes(300)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        clip = load_video(path, fps=10, max_frames=300)
    shown = numbers(clip.frames)
    assert 290 <= len(clip) < 300 and shown == [round(10 * time) for time in clip.times]
    assert "damaged packets passed over" in caplog.text


def test_nothing_but_damage_is_an_error(tmp_path: Path):
    path = write_video(tmp_path / "x.mp4", 50)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[start:end] = bytes((i * 7) % 256 for i in range(end - start))
    path.write_bytes(data)
    with pytest.raises(SampleError, match="damaged or truncated") as caught:
        load_video(path)
    assert caught.value.reason == "unreadable_video" and str(path) in str(caught.value)


def test_a_stream_without_frames(tmp_path: Path):
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    with pytest.raises(SampleError) as caught:
        load_video(path)
    assert caught.value.reason == "no_frames"


def test_huge_frames_are_reduced_and_keep_their_shape(tmp_path: Path):
    path = write_video(tmp_path / "x.mp4", 4, size=(240, 480), picture=marked)
    for most in (240 * 480, 10_000, 7_001):
        frames = load_video(path, **EVERYTHING, max_pixels=most).frames
        height, width = frames.shape[2:]
        assert height * width <= most and len(frames) == 4
        assert width / height == pytest.approx(2, rel=0.1) and corners(frames[0]) == "rb--"
    reduced = load_video(path, **EVERYTHING, max_pixels=60 * 120).frames.float()
    whole = load_video(path, **EVERYTHING).frames.float()
    means = torch.nn.functional.avg_pool2d(whole, 4)
    assert whole.shape[2:] == (240, 480) and (reduced - means)[..., 2:-2, 2:-2].abs().mean() < 6


def test_a_clip_of_many_frames_is_bounded_as_a_whole(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(video_pixels, "MAX_CLIP_PIXELS", 40 * 1000)
    path = write_video(tmp_path / "x.mp4", 40, size=(60, 120))
    few, all_of_them = load_video(path, max_frames=4), load_video(path, fps=10, max_frames=40)
    assert few.frames.shape == (4, 3, 60, 120), "few frames keep their size"
    assert len(all_of_them) == 40 and all_of_them.frames[:, 0].numel() <= 40 * 1000


def test_sizes_of_frames():
    assert shown_size(1920, 1080, 1.0, 1920 * 1080) == (1920, 1080)
    assert shown_size(7680, 4320, 1.0, 1920 * 1080) == (1920, 1080)
    assert shown_size(720, 576, 16 / 15, 10**7) == (768, 576)
    assert shown_size(10**4, 1, 1.0, 100) == (100, 1) and shown_size(1, 10**4, 1.0, 100) == (1, 100)
    for width, height, aspect in ((101, 57, 1.3), (3, 5000, 0.2), (16384, 16384, 1.0)):
        wide, high = shown_size(width, height, aspect, 5000)
        assert 1 <= wide * high <= 5000


def test_a_frame_too_large_for_any_side_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("vlm.media.video_stream.MAX_SIDE", 60)
    path = write_video(tmp_path / "x.mp4", 2)
    with pytest.raises(SampleError, match="larger than 60") as caught:
        load_video(path)
    assert caught.value.reason == "too_large"


def test_a_stream_that_changes_its_size_takes_that_of_its_first_frame(tmp_path: Path):
    parts = [write_video(tmp_path / f"{side}.h264", 10, size=(side, side)) for side in (64, 128)]
    path = tmp_path / "x.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    clip = load_video(path, **EVERYTHING)
    # the header's largest or first size; all frames alike, and all there
    assert len(clip) == 20 and numbers(clip.frames) == [*range(10), *range(10)]


def test_missing_timestamps_are_filled_in_by_the_rate(tmp_path: Path):
    path = write_video(tmp_path / "x.mkv", 10)
    with VideoStream(path) as source:
        reader = Reader(source)
        real = source.time_of
        source.time_of = lambda item: None if real(item) in (0.3, 0.4) else real(item)
        times = [reader.at(i / 10)[0] for i in range(10)]
    assert times == pytest.approx([i / 10 for i in range(10)])


def test_several_groups_of_a_recording_begun_in_the_middle(tmp_path: Path):
    """A transport stream cut at an odd place: time starts with the first picture that can be shown."""
    segments = [
        write_video(tmp_path / f"{k}.mp4", 50, options={"g": "50"}, picture=lambda i, h, w, k=k: bars(50 * k + i, h, w))
        for k in range(3)
    ]
    whole = repeat_packets(segments, tmp_path / "whole.ts", 3).read_bytes()
    path = tmp_path / "x.ts"
    path.write_bytes(whole[len(whole) // 6 // 188 * 188 :])
    clip = load_video(path, fps=10, max_frames=1000)
    shown = numbers(clip.frames)
    assert shown[-1] == 149 and shown == list(range(shown[0], 150)) and clip.times[0] == 0
    assert clip.times == pytest.approx([i / 10 for i in range(len(shown))], abs=2e-3)


def test_a_list_of_files_is_no_video(tmp_path):
    """A playlist in a data folder must not read what lies outside it."""
    outside = tmp_path / "outside.ts"
    with av.open(str(outside), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for shade in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 5 * shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    folder = tmp_path / "data"
    folder.mkdir()
    listed = folder / "clip.m3u8"
    listed.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{outside}\n#EXT-X-ENDLIST\n")
    assert len(load_video(outside, max_frames=2)) >= 1, "the file itself opens"
    with av.open(str(listed)) as container:
        assert "hls" in container.format.name, "a control: FFmpeg follows the list"
    with pytest.raises(SampleError) as error:
        load_video(listed)
    assert error.value.reason == "unreadable_video"
