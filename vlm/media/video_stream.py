"""An open video file: the stream that is the video, its clock, its rate, its length.

Headers lie, so each fact has a fallback: rate -> guess -> 25; length -> container -> a pass over the packets.
"""

import math
from fractions import Fraction
from pathlib import Path

from vlm.errors import SampleError

MAX_SIDE = 16_384  # pixels
DEFAULT_RATE = 25.0  # frames a second where nothing is known: FFmpeg's own default for raw streams
RATES_AGREE = 0.01  # relative difference of average and base rate up to which a stream has a constant rate
# FFmpeg's readers of lists of files, which may lead out of a data folder, and of plain text
NO_VIDEO_FILES = {"hls", "dash", "concat", "imf", "image2", "image2pipe", "tty", "bin", "xbin", "sdp", "rtsp"}


class VideoStream:
    """A container opened for one pass or for seeking. Times are seconds from the first frame's timestamp.

    Attributes:
        timed: False for raw streams, which carry no timestamps: frames are counted.
        rate: Frames a second: the header's average.
        is_constant: Whether average and base rate agree, i.e. whether frame i is at i / rate.
        is_interlaced: A picture may then be two packets.
    """

    def __init__(self, path: Path, threads: str = "AUTO") -> None:
        import av

        self.path = path
        self.container = av.open(str(path), metadata_errors="replace", options={"protocol_whitelist": "file"})
        try:
            if named := NO_VIDEO_FILES & set(self.container.format.name.split(",")):
                message = f"a file of the kind {', '.join(named)} names other files or letters: give the video itself"
                raise SampleError(message, path=path, reason="unreadable_video")
            self.stream = choose_stream(self.container, path)
        except SampleError:
            self.container.close()
            raise
        self.stream.thread_type = threads
        stream = self.stream
        self.timed = stream.start_time is not None and bool(stream.time_base)
        self.zero = float(stream.start_time * stream.time_base) if self.timed else 0.0
        named = (stream.average_rate, stream.guessed_rate, stream.base_rate)
        # the average of a raw stream is a constant of FFmpeg; its headers' rate is in the guess
        self.rate = first_rate(*(named if self.timed else named[1:] + named[:1]))
        base = first_rate(stream.guessed_rate, stream.base_rate, self.rate)
        self.is_constant = abs(base - self.rate) <= RATES_AGREE * self.rate
        self.is_interlaced = getattr(stream.codec_context, "field_order", 0) > 1

    def __enter__(self) -> "VideoStream":
        return self

    def __exit__(self, *_) -> None:
        self.container.close()

    def seek(self, time: float, backward: bool = True) -> None:
        """To the key frame before (or behind) `time`, as far as the container can tell."""
        target = round((self.zero + time) / self.stream.time_base)
        self.container.seek(target, stream=self.stream, backward=backward)

    def time_of(self, item) -> float | None:
        """Seconds of a frame or packet; None where it carries no timestamp."""
        stamp = item.pts if item.pts is not None else item.dts
        return None if stamp is None or not item.time_base else float(stamp * item.time_base) - self.zero

    def duration(self) -> float:
        """Seconds: the stream's, else the container's, else counted without decoding (SampleError: no_frames)."""
        if self.stream.duration and self.stream.duration > 0 and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        if self.container.duration and self.container.duration > 0:
            return self.container.duration / 1_000_000
        count, last = 0, 0.0
        with VideoStream(self.path) as again:
            for packet in again.container.demux(again.stream):
                if packet.size:
                    count += 1
                    last = max(last, (again.time_of(packet) or 0.0) + 1 / self.rate if self.timed else 0.0)
        if count == 0:
            raise SampleError("the video has no frames", path=self.path, reason="no_frames")
        return last or count / self.rate

    def pixel_aspect(self) -> float:
        """Width of a pixel over its height; 1 where the header says nothing or something absurd."""
        aspect = self.stream.sample_aspect_ratio
        return float(aspect) if aspect and Fraction(1, 8) <= aspect <= 8 else 1.0


def choose_stream(container, path: Path):
    """The largest moving picture of a container: cover art and thumbnails are no video.

    Raises:
        SampleError: no_frames (no video stream), unreadable_video (no codec), too_large.
    """
    if not container.streams.video:
        raise SampleError("the file has no video stream", path=path, reason="no_frames")
    if not (streams := [stream for stream in container.streams.video if not is_cover(stream)]):
        raise SampleError("the file has no video stream, only a cover picture", path=path, reason="no_frames")
    if not (streams := [stream for stream in streams if stream.codec_context is not None]):
        # what a file cut short before its codec is described looks like, and a codec FFmpeg does not know
        message = "no decodable video stream: truncated, or of an unknown codec"
        raise SampleError(message, path=path, reason="unreadable_video")
    stream = max(streams, key=lambda s: (s.width or 0) * (s.height or 0))
    if max(stream.width or 0, stream.height or 0) > MAX_SIDE:
        message = f"frames of {stream.width} x {stream.height} pixels are larger than {MAX_SIDE} a side"
        raise SampleError(message, path=path, reason="too_large")
    return stream


def is_cover(stream) -> bool:
    """A picture attached to music or a film."""
    from av.stream import Disposition

    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def first_rate(*rates) -> float:
    """The first usable one; headers hold None, 0 and 0/0."""
    for rate in rates:
        if rate and math.isfinite(rate) and rate > 0:
            return float(rate)
    return DEFAULT_RATE
