"""Sampling without decoding everything: jumps to key frames, and takes those themselves where samples lie far apart.

Key frames are looked up with a demuxer of their own, so the decoder on its way is disturbed only to be moved forward.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vlm.media.video_reader import CLOSE, Reader
from vlm.media.video_stream import VideoStream

MIN_JUMP = 2.0  # seconds ahead up to which decoding on is not worth a look-up
SNAP_GAP = 10.0  # seconds between samples from which a key frame nearby is as good
SNAP_PART = 0.25  # of the spacing: how far from the planned time it may lie
BACK_STEPS = (0.0, 1.0, 4.0, 16.0, 64.0)  # seconds: containers without an index land near, not on, a key frame
MAX_PACKETS = 5_000  # read in search of a key frame


@dataclass
class KeyFrame:
    """`packet` of the key frame shown at `time` seconds."""

    time: float
    packet: Any


class KeyFrames:
    """Looks up and decodes single key frames of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.zero: float | None = None  # seconds of the first frame, where the header is known to be wrong

    @cached_property
    def source(self) -> VideoStream:
        """Opened at the first look-up; most clips need none."""
        source = VideoStream(self.path, threads="SLICE")  # frame threads would hold back the one frame wanted
        source.zero = source.zero if self.zero is None else self.zero
        return source

    def close(self) -> None:
        """Closes the file."""
        if "source" in self.__dict__:
            self.source.container.close()

    def before(self, time: float) -> KeyFrame | None:
        """The last key frame not later than `time`; None where the container cannot find one."""
        for back in BACK_STEPS:
            found = self._behind_seek(time - back, True, time if back else None)
            if found is not None and found.time <= time + CLOSE:
                return found
            if back >= time:
                return None
        return None

    def after(self, time: float) -> KeyFrame | None:
        """The first key frame not earlier than `time`."""
        found = self._behind_seek(time, False, None)
        return found if found is not None and found.time >= time else None

    def nearest(self, time: float, within: float, start: float, stop: float) -> KeyFrame | None:
        """The key frame in [start, stop) nearest to `time`, if it is at most `within` seconds away."""
        found = [key for key in (self.before(time), self.after(time)) if key is not None]
        found = [key for key in found if abs(key.time - time) <= within and start <= key.time + CLOSE < stop]
        return min(found, key=lambda key: abs(key.time - time), default=None)

    def decode(self, key: KeyFrame):
        """The frame of a key frame alone; None when the decoder makes none of it."""
        import av

        context = self.source.stream.codec_context
        try:
            context.flush_buffers()
            frames = [*context.decode(key.packet), *context.decode(None)]
        except av.FFmpegError:
            return None
        finally:
            context.flush_buffers()
        return next((frame for frame in frames if not frame.is_corrupt), None)

    def _behind_seek(self, time: float, backward: bool, until: float | None) -> KeyFrame | None:
        """The first key frame from where a seek lands; with `until` the last one not later than that."""
        import av

        found = None
        try:
            self.source.seek(time, backward)
            for number, packet in enumerate(self.source.container.demux(self.source.stream)):
                now = self.source.time_of(packet)
                if not packet.size or number > MAX_PACKETS or (until is not None and now is not None and now > until):
                    break
                if packet.is_keyframe and now is not None:
                    found = KeyFrame(now, packet)
                    if until is None:
                        break
        except av.FFmpegError:
            return found
        return found


def pick(
    reader: Reader, keys: KeyFrames | None, times: list[float], start: float, stop: float, exact: bool
) -> Iterator[tuple[float, Any]]:
    """For each planned time the frame on screen then, as (its own seconds, frame); nothing twice.

    Args:
        keys: None reads in one pass.
        exact: Otherwise, where `times` lie more than `SNAP_GAP` apart, the key frame nearest to a time stands for it
            if it is at most `SNAP_PART` of the spacing away (and in [start, stop)).
    """
    spacing = (times[-1] - times[0]) / max(1, len(times) - 1)
    within = SNAP_PART * spacing if keys and not exact and spacing > SNAP_GAP else 0.0
    last = None
    for time in times:
        found = _near_key(reader, keys, time, within, start, stop) if within else None
        if found is None:
            if keys and time > reader.position + MIN_JUMP:
                key = keys.before(time)
                if key is not None and key.time > reader.position + CLOSE:
                    reader.jump(key.time, time)
            found = reader.at(time)
        if found is not None and (last is None or last < found[0]):
            last = found[0]
            yield found


def _near_key(reader: Reader, keys: KeyFrames, time: float, within: float, start: float, stop: float):
    key = keys.nearest(time, within, start, stop)
    if key is None:
        return None
    if keys.source.is_interlaced:  # one packet may be one field: take the way that joins the two
        if key.time > reader.position + CLOSE:
            reader.jump(key.time, key.time)
        return reader.at(key.time)
    frame = keys.decode(key)
    return None if frame is None else (key.time, frame)
