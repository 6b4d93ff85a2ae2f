"""Frames of a video file with their times, through PyAV (whose wheels carry FFmpeg: AV1, HEVC, 10-bit, 4:4:4 open).

Only the frames asked for are kept, so memory is bounded by `max_frames`; where they lie far apart the decoder jumps.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vlm.errors import SampleError

MAX_SIDE = 16_384
SEEK_GAP = 10.0  # seconds: above this, jumping to a key frame beats decoding everything in between


@dataclass
class VideoFrames:
    """`frames` (T, 3, H, W) uint8 and `timestamps`, seconds from the start of the video."""

    frames: torch.Tensor
    timestamps: list[float]

    def __len__(self) -> int:
        return len(self.timestamps)


def plan_times(duration: float, max_frames: int, fps: float, start: float, end: float | None) -> list[float]:
    """Times to sample in [start, end): every 1/fps seconds, or `max_frames` spread evenly when that would be more."""
    stop = duration if end is None else min(end, duration)
    span = max(stop - start, 0.0)
    wanted = max(1, min(max_frames, int(span * fps + 1e-6) or 1))
    step = 1.0 / fps if span * fps <= max_frames else span / wanted
    # the middle of each slice: the first and last frames are often black or a title
    offset = 0.0 if span * fps <= max_frames else step / 2
    return [start + offset + i * step for i in range(wanted)]


def load_video(
    path: str | os.PathLike,
    max_frames: int = 8,
    fps: float = 2.0,
    start: float | None = None,
    end: float | None = None,
) -> VideoFrames:
    """Samples a video at `fps`, at most `max_frames` frames, optionally only between `start` and `end` seconds.

    The largest video stream is read (a file may hold several). The frame shown at each planned time is taken: the last
    one whose timestamp is not later.

    Raises:
        SampleError: missing_file, empty_file, unreadable_video, no_frames, bad_range, too_large.
    """
    if max_frames < 1 or fps <= 0:
        raise ValueError(f"max_frames={max_frames} and fps={fps} must be positive")
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise SampleError("video file does not exist", path=path, reason="missing_file")
    if path.stat().st_size == 0:
        raise SampleError("video file is empty", path=path, reason="empty_file")
    try:
        import av
    except ImportError as error:
        raise ImportError("reading video files needs PyAV: pip install 'radio-vlm[video]'") from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise SampleError("the file has no video stream", path=path, reason="no_frames")
            if not (streams := [stream for stream in container.streams.video if stream.codec_context is not None]):
                # what a file cut short before its codec is described looks like, and a codec FFmpeg does not know
                raise SampleError(
                    "no decodable video stream: truncated, or of an unknown codec", path=path, reason="unreadable_video"
                )
            stream = max(streams, key=lambda s: (s.width or 0) * (s.height or 0))
            if max(stream.width or 0, stream.height or 0) > MAX_SIDE:
                message = f"frames of {stream.width} x {stream.height} pixels are larger than {MAX_SIDE} a side"
                raise SampleError(message, path=path, reason="too_large")
            stream.thread_type = "AUTO"
            duration = _duration(container, stream, path)
            begin, stop = max(start or 0.0, 0.0), duration if end is None else end
            if begin >= stop or begin > duration:
                message = f"start={begin:g} s, end={stop:g} s is no range of a video of {duration:.2f} s"
                raise SampleError(message, path=path, reason="bad_range")
            times = plan_times(duration, max_frames, fps, begin, end)
            kept = _pick(container, stream, times)
    except av.FFmpegError as error:
        raise SampleError(f"cannot decode video: {error}", path=path, reason="unreadable_video") from error
    if not kept:
        raise SampleError("the video has no frames in the wanted range", path=path, reason="no_frames")
    frames = np.stack([image for _, image in kept])
    return VideoFrames(torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(), [time for time, _ in kept])


def _duration(container, stream, path) -> float:
    """Seconds, from the stream, else the container, else (raw streams) by decoding once."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return container.duration / 1_000_000
    import av

    with av.open(str(path)) as again:
        count = sum(1 for _ in again.decode(again.streams.video[0]))
    if count == 0:
        raise SampleError("the video has no frames", path=path, reason="no_frames")
    return count / float(stream.average_rate or 25)


def _pick(container, stream, times: list[float]) -> list[tuple[float, np.ndarray]]:
    """For each planned time the frame on screen then; nothing twice.

    One pass over the stream; where the times lie far apart, one short pass from the key frame before each.
    """
    start = float((stream.start_time or 0) * stream.time_base) if stream.time_base else 0.0
    gap = (times[-1] - times[0]) / max(1, len(times) - 1)
    parts = [[time] for time in times] if gap > SEEK_GAP else [times]
    kept: list[tuple[float, np.ndarray]] = []
    for part in parts:
        if part[0] > SEEK_GAP and stream.time_base:
            container.seek(int((start + part[0]) / stream.time_base), stream=stream)
        for time, frame in _scan(container, stream, part, start):
            if not kept or kept[-1][0] < time:
                kept.append((time, _rgb(frame)))
    return kept


def _scan(container, stream, times: list[float], start: float):
    """Decodes onwards; yields (seconds since the start of the video, frame) for each time."""
    rate = float(stream.average_rate or 25)
    previous, wanted = None, 0
    for number, frame in enumerate(container.decode(stream)):
        now = frame.time - start if frame.time is not None else number / rate
        while wanted < len(times) and now > times[wanted] + 1e-3:
            yield previous or (now, frame)
            wanted += 1
        if wanted == len(times):
            return
        previous = (now, frame)
    # times behind the last frame (the header promised a longer video) fall on it
    if previous is not None and wanted < len(times):
        yield previous


def _rgb(frame) -> np.ndarray:
    """A decoded frame of any pixel format -> (H, W, 3) uint8, turned upright by its rotation flag."""
    image = frame.to_ndarray(format="rgb24")
    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
