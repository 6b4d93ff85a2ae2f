"""Frames of a video file with their times, through PyAV (whose wheels carry FFmpeg: AV1, HEVC, 10-bit, 4:4:4 open).

Only the frames asked for are kept, so memory is bounded; where they lie far apart the decoder jumps. Animated GIF, WebP
and PNG are videos too (`vlm.media.animation`).
"""

import logging
import math
import os
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vlm.errors import SampleError
from vlm.media.animation import is_animation, load_animation
from vlm.media.video_pixels import MAX_PIXELS, FrameStore
from vlm.media.video_reader import LostError, Reader
from vlm.media.video_seek import KeyFrames, pick
from vlm.media.video_stream import VideoStream
from vlm.video_prompt import constant_rate, prompt_times

logger = logging.getLogger(__name__)


@dataclass
class VideoFrames:
    """Frames of a clip.

    Attributes:
        frames: (T, 3, H, W) uint8.
        timestamps: Seconds as the prompt shows them (`vlm.video_prompt.prompt_times`).
        times: Seconds at which the frames really begin, from the first frame of the file; default: the timestamps.
        rate: Frames a second of the file; None where it varies.
    """

    frames: torch.Tensor
    timestamps: list[float]
    times: list[float] = field(default=None)
    rate: float | None = None

    def __post_init__(self) -> None:
        self.times = self.timestamps if self.times is None else self.times

    def __len__(self) -> int:
        return len(self.timestamps)


def load_video(
    path: str | os.PathLike,
    max_frames: int = 8,
    fps: float = 2.0,
    start: float | None = None,
    end: float | None = None,
    exact: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> VideoFrames:
    """Samples a video at `fps`, at most `max_frames` frames (then spread evenly), or only its seconds [start, end).

    The largest video stream is read (cover pictures are none). The frame on screen at each planned time is taken, by
    the frames' own timestamps; no frame twice, so asking for more than there are gives all of them once (of a varying
    rate: all that are on screen at a planned time). Frames are turned upright, pixels made square (the shorter side is
    stretched), and frames of more than `max_pixels` reduced, or smaller ones where all together would exceed
    `MAX_CLIP_PIXELS`.

    Args:
        exact: Decode to the very frame, at the cost of up to a group of pictures a frame. Otherwise, where samples lie
            more than 10 s apart, a key frame at most a quarter of their spacing from the planned time is taken for it.
            The times returned are those of the frames taken, either way.
        max_pixels: Largest frame kept.

    A file that ends before its header says is sampled over what there is; one whose index or timestamps are broken is
    read in one pass; both are logged.

    Raises:
        SampleError: missing_file, empty_file, unreadable_video, no_frames, bad_range, too_large.
        ValueError: Settings that cannot be meant.
    """
    if not (max_frames >= 1 and fps > 0 and max_pixels >= 1 and math.isfinite(fps)):
        raise ValueError(f"max_frames={max_frames}, fps={fps} and max_pixels={max_pixels} must be positive")
    if not all(math.isfinite(value) for value in (start, end) if value is not None):
        raise ValueError(f"start={start} and end={end} must be seconds")
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise SampleError("video file does not exist", path=path, reason="missing_file")
    if path.stat().st_size == 0:
        raise SampleError("video file is empty", path=path, reason="empty_file")
    begin, stop = max(start or 0.0, 0.0), math.inf if end is None else end
    if begin >= stop:
        raise SampleError(f"start={begin:g} s, end={stop:g} s is no range of a video", path=path, reason="bad_range")
    if is_animation(path):
        store, rate = load_animation(path, lambda length: _plan(path, length, max_frames, fps, begin, stop), max_pixels)
        return VideoFrames(store.frames(), prompt_times(store.times, rate), store.times, rate)
    try:
        import av
    except ImportError as error:
        raise ImportError("reading video files needs PyAV: pip install 'radio-vlm[video]'") from error
    one_pass = count = False
    while True:
        try:
            return _sample(path, max_frames, fps, begin, stop, exact, max_pixels, one_pass, count)
        except LostError as lost:  # at most twice: frames that are counted cannot get lost
            one_pass, count = True, one_pass or lost.count
            logger.warning("%s: %s; reading it in one pass%s", path, lost, ", counting frames" if count else "")
        except av.FFmpegError as error:
            raise SampleError(f"cannot decode video: {error}", path=path, reason="unreadable_video") from error


def plan_times(duration: float, max_frames: int, fps: float, start: float, end: float | None) -> list[float]:
    """Times to sample in [start, end): every 1/fps seconds, or `max_frames` spread evenly when that would be more."""
    stop = duration if end is None else min(end, duration)
    span = max(stop - start, 0.0)
    wanted = max(1, min(max_frames, int(span * fps + 1e-6) or 1))
    step = 1.0 / fps if span * fps <= max_frames else span / wanted
    # the middle of each slice: the first and last frames are often black or a title
    offset = 0.0 if span * fps <= max_frames else step / 2
    return [start + offset + i * step for i in range(wanted)]


def _plan(path: Path, duration: float, max_frames: int, fps: float, begin: float, stop: float) -> list[float]:
    """`plan_times`, refusing a range behind the end."""
    if begin > 0 and begin >= duration:
        message = f"start={begin:g} s, end={stop:g} s is no range of a video of {duration:.2f} s"
        raise SampleError(message, path=path, reason="bad_range")
    return plan_times(duration, max_frames, fps, begin, stop)


def _sample(
    path: Path,
    max_frames: int,
    fps: float,
    begin: float,
    stop: float,
    exact: bool,
    max_pixels: int,
    one_pass: bool,
    count: bool,
    duration: float | None = None,
) -> VideoFrames:
    """One try. `duration` is given when the header's was found to be too long."""
    keys = KeyFrames(path)
    with VideoStream(path) as source, closing(keys):
        reader = Reader(source, count)
        reader.align()
        keys.zero = source.zero
        known = source.duration() if duration is None else duration
        times = _plan(path, known, max_frames, fps, begin, stop)
        existing = math.ceil((min(stop, known) - begin) * source.rate) + 2
        store = FrameStore(min(len(times), existing), source.pixel_aspect(), max_pixels)
        look_up = None if one_pass or reader.count else keys
        for time, frame in pick(reader, look_up, times, begin, min(stop, known), exact):
            store.add(time, frame)
        if reader.damaged:
            logger.warning("%s: %d damaged packets passed over", path, reader.damaged)
        if not store.times:
            message, reason = "the video has no frames in the wanted range", "no_frames"
            if reader.damaged:
                message, reason = "no frame of the video can be decoded: damaged or truncated", "unreadable_video"
            raise SampleError(message, path=path, reason=reason)
        ends, spacing = reader.end, (times[-1] - times[0]) / max(1, len(times) - 1)
        # at least one sample wasted; headers are often a frame or two off
        is_short = duration is None and reader.ended and times[-1] > ends + spacing + 0.05 * known
        rate = source.rate if source.is_constant or reader.count else None
    if is_short:
        logger.warning("%s: ends at %.2f s, not at %.2f s as its header says", path, ends, known)
        return _sample(path, max_frames, fps, begin, stop, exact, max_pixels, one_pass, count, duration=ends)
    rate = constant_rate(store.times, rate)
    return VideoFrames(store.frames(), prompt_times(store.times, rate), store.times, rate)
