"""Decoding onwards: which frame is on screen at a time, whatever the timestamps and the damage of the file."""

import logging

from vlm.media.video_stream import VideoStream

logger = logging.getLogger(__name__)
CLOSE = 1e-3  # seconds: a frame this little late is on screen (containers round to milliseconds)
BACK_STEPS = (0.0, 1.0, 5.0)  # seconds further back to try when a seek lands behind its target


class LostError(Exception):
    """Timestamps or index cannot be trusted: the file must be read in one pass."""

    def __init__(self, why: str, count: bool = False) -> None:
        super().__init__(why)
        self.count = count  # number the frames: their timestamps are no use


class Reader:
    """Hands out the frame shown at ascending times; `jump` moves on to a key frame.

    Args:
        source: The stream, at its beginning.
        count: Frames are numbered and timed by the rate, as those of raw streams always are.
    """

    def __init__(self, source: VideoStream, count: bool = False) -> None:
        self.source = source
        self.count = count or not source.timed
        self.ended = False
        self.damaged = 0  # packets that could not be decoded
        self._shown = self._next = None  # (seconds, frame): on screen, and the one behind it
        self._number = 0
        self._last: float | None = None
        self._frames = self._decode()

    @property
    def position(self) -> float:
        """Seconds up to which frames have been decoded."""
        return self._next[0] if self._next else self._shown[0] if self._shown else 0.0

    @property
    def end(self) -> float:
        """Seconds at which the last frame decoded so far leaves the screen."""
        if self._shown is None:
            return 0.0
        time, frame = self._shown
        length = getattr(frame, "duration", None)  # PyAV before 15 does not tell
        length = float(length * frame.time_base) if length and frame.time_base else 0.0
        return time + max(length, 1 / self.source.rate)

    def align(self) -> None:
        """Makes the first frame that can be decoded second 0, whatever start the header names.

        AVI counts the decoder's delay into its timestamps; recordings begin in the middle of a group of pictures.
        """
        self._advance()
        if self._next is not None and not self.count:
            self.source.zero += self._next[0]
            self._next, self._last = (0.0, self._next[1]), 0.0

    def at(self, time: float):
        """(seconds, frame) on screen at `time`: the last not later, or the first of all; None of an empty stream."""
        while not self.ended and (self._next is None or self._next[0] <= time + CLOSE):
            self._advance()
        return self._shown or self._next

    def jump(self, key_time: float, time: float) -> None:
        """Goes on from the key frame at `key_time`, on the way to `time` (LostError when it cannot be reached)."""
        import av

        for back in BACK_STEPS:
            try:
                self.source.seek(key_time - back)
            except av.FFmpegError as error:
                raise LostError(f"seeking to {time:.1f} s failed: {error}") from error
            self._shown = self._next = self._last = None
            self.ended = False
            self._frames = self._decode()
            self._advance()
            if self._next is not None and self._next[0] <= time + CLOSE:
                return
        raise LostError(f"seeking to {time:.1f} s landed elsewhere")

    def _advance(self) -> None:
        found = next(self._frames, None)
        if found is None:
            self.ended = True
            self._shown, self._next = self._next or self._shown, None
        else:
            self._shown, self._next = self._next, found

    def _decode(self):
        """(seconds, frame) in the order of display; damaged packets are passed over."""
        for frame in self._raw_frames():
            yield self._clock(frame), frame

    def _raw_frames(self):
        import av

        packets = self.source.container.demux(self.source.stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:  # cut short: what the decoder still holds is shown
                logger.warning("%s: reading stops at damage: %s", self.source.path, error)
                self.damaged += 1
                packet = None
            try:
                if packet is None:
                    return
                yield from packet.decode()
            except av.EOFError:
                return
            except av.FFmpegError:
                self.damaged += 1

    def _clock(self, frame) -> float:
        number, self._number = self._number, self._number + 1
        if self.count:
            return number / self.source.rate
        time = self.source.time_of(frame) if frame.pts is not None else None
        if time is None:
            if self._last is None and number:
                raise LostError("a frame behind a seek has no timestamp", count=True)
            time = 0.0 if self._last is None else self._last + 1 / self.source.rate
        elif self._last is not None and time < self._last:
            raise LostError("timestamps run backwards", count=True)
        self._last = time
        return time
