"""Animated GIF, WebP and PNG as videos: recognised by content, each frame as long as it says."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.video_files import bars, numbers
from vlm.errors import SampleError
from vlm.media import animation, load_video
from vlm.media.animation import is_animation

LENGTHS = [100, 300, 50, 50, 500, 200]  # milliseconds
STARTS = [0.0, 0.1, 0.4, 0.45, 0.5, 1.0]
KINDS = {"gif": {}, "webp": {"lossless": True}, "png": {}}


def write(path: Path, kind: str, lengths=LENGTHS, mode: str = "RGB", **options) -> Path:
    pictures = [Image.fromarray(bars(i)).convert(mode) for i in range(len(lengths))]
    options = {"save_all": True, "append_images": pictures[1:], "duration": lengths} | KINDS[kind] | options
    pictures[0].save(path, format=kind.upper(), **options)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_frames_and_their_times(tmp_path: Path, kind: str):
    path = write(tmp_path / "x.mp4", kind)  # the suffix says nothing
    assert is_animation(path)
    clip = load_video(path, max_frames=1000, fps=1000)
    assert numbers(clip.frames) == list(range(6)) and clip.frames.shape == (6, 3, 64, 64)
    assert clip.times == pytest.approx(STARTS) and clip.timestamps == clip.times and clip.rate is None
    assert str(clip.frames.dtype) == "torch.uint8"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_on_screen_at_each_sample(tmp_path: Path, kind: str):
    path = write(tmp_path / "x", kind)
    assert numbers(load_video(path, fps=5).frames) == [0, 1, 2, 4, 5]  # at 0, 0.2, 0.4, 0.6, 0.8 (still 4), 1.0
    assert numbers(load_video(path, max_frames=2, fps=50).frames) == [1, 4]  # at 0.3 and 0.9
    assert numbers(load_video(path, start=0.42, end=0.6, fps=20).frames) == [2, 3, 4]
    with pytest.raises(SampleError) as caught:
        load_video(path, start=1.2)
    assert caught.value.reason == "bad_range"


def test_equal_durations_are_a_constant_rate(tmp_path: Path):
    clip = load_video(write(tmp_path / "x.gif", "gif", [40] * 30), fps=2)
    assert clip.rate == 25 and numbers(clip.frames) == [0, 12] and clip.timestamps == [0.0, 0.48]


def test_no_duration_means_a_tenth_of_a_second(tmp_path: Path):
    clip = load_video(write(tmp_path / "x.gif", "gif", [0, 10, 20]), fps=1000, max_frames=1000)
    assert clip.times == pytest.approx([0, 0.1, 0.2])


def test_still_pictures(tmp_path: Path):
    for kind, known in (("gif", True), ("webp", True), ("png", False)):
        path = tmp_path / f"x.{kind}"
        Image.fromarray(bars(5)).save(path, **KINDS[kind])
        assert is_animation(path) == known
        if known:
            clip = load_video(path)
            assert numbers(clip.frames) == [5] and clip.timestamps == [0.0]


def test_transparency_is_laid_on_white(tmp_path: Path):
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    clear.save(tmp_path / "x.webp", save_all=True, append_images=[Image.new("RGBA", (32, 32), "red")], lossless=True)
    frames = load_video(tmp_path / "x.webp", fps=100).frames
    assert (frames[0] == 255).all() and frames[1, :, 9, 9].tolist() == [255, 0, 0]


def test_frames_that_only_change_a_part(tmp_path: Path):
    """Later frames of a GIF hold the changed rectangle; what is shown is the whole picture."""
    pictures = [Image.new("RGB", (64, 64), "navy") for _ in range(4)]
    for i, picture in enumerate(pictures):
        picture.paste((255, 0, 0), (8 * i, 8, 8 * i + 8, 16))
    pictures[0].save(tmp_path / "x.gif", save_all=True, append_images=pictures[1:], duration=100, optimize=True)
    for frame, picture in zip(load_video(tmp_path / "x.gif", fps=10).frames, pictures, strict=True):
        assert np.abs(frame.permute(1, 2, 0).numpy().astype(int) - np.asarray(picture)).max() <= 8


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_reduced(tmp_path: Path, kind: str):
    pictures = [Image.fromarray(bars(i, 200, 400)) for i in range(3)]
    pictures[0].save(tmp_path / "x", kind.upper(), save_all=True, append_images=pictures[1:], duration=100)
    clip = load_video(tmp_path / "x", fps=100, max_frames=99, max_pixels=50 * 100)
    assert clip.frames.shape == (3, 3, 50, 100) and numbers(load_video(tmp_path / "x", fps=10).frames) == [0, 1, 2]


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch):
    path = write(tmp_path / "x.gif", "gif")
    monkeypatch.setattr(animation, "MAX_IMAGE_PIXELS", 64 * 63)
    with pytest.raises(SampleError, match="larger than") as caught:
        load_video(path)
    assert caught.value.reason == "too_large" and str(path) in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_truncated(tmp_path: Path, caplog, kind: str):
    """What can be read is shown; nothing at all is an error."""
    noise = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
    pictures = [Image.fromarray(each) for each in noise]
    path = tmp_path / "x"
    pictures[0].save(path, kind.upper(), save_all=True, append_images=pictures[1:], duration=100, **KINDS[kind])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 5])
    with caplog.at_level(logging.WARNING):
        try:
            clip = load_video(path, fps=10)
            assert 1 <= len(clip) < 8
        except SampleError as error:
            assert error.reason == "unreadable_video" and str(path) in str(error)
            assert kind == "webp", "Pillow reads a WebP whole or not at all"
    path.write_bytes(data[:60])
    with pytest.raises(SampleError) as caught:
        load_video(path)
    assert caught.value.reason == "unreadable_video" and str(path) in str(caught.value)


def test_an_animation_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "long.gif"
    frames = [Image.new("L", (32, 32), shade) for shade in range(0, 250, 25)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    assert len(load_video(path, max_frames=20, fps=10)) == 10
    monkeypatch.setattr("vlm.media.animation.MAX_ANIMATION_PIXELS", 32 * 32 * 9)
    with pytest.raises(SampleError, match="10 frames of 32 x 32") as error:
        load_video(path)
    assert error.value.reason == "too_large"
