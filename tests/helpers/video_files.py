"""Video files made for tests: every frame shows its own number as bars, so that a test can tell which frame it got."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

BITS = 16


def bars(number: int, height: int = 64, width: int = 64) -> np.ndarray:
    """(H, W, 3) uint8: `number` in binary, one white or black bar a bit, the lowest bit on the left."""
    bits = [(number >> i) & 1 for i in range(BITS)]
    row = np.repeat(np.array(bits, np.uint8) * 215 + 20, -(-width // BITS))[:width]
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def numbers(frames) -> list[int]:
    """The numbers shown by (T, 3, H, W) frames."""
    wide = frames.shape[-1]
    cell = -(-wide // BITS)
    centres = [min(i * cell + cell // 2, wide - 1) for i in range(BITS)]
    on = frames.float().mean(dim=(1, 2))[:, centres] > 127
    return [sum(int(bit) << i for i, bit in enumerate(row)) for row in on.tolist()]


def write_video(
    path: Path,
    count: int,
    rate=10,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (64, 64),
    options: dict | None = None,
    stamps: list[float] | None = None,
    aspect: Fraction | None = None,
    prepare=None,
    picture=bars,
) -> Path:
    """Writes `count` frames of `size` (height, width); skips the test where this FFmpeg lacks the encoder.

    stamps: seconds of each frame (unit: milliseconds); default: constant `rate`.
    prepare: called with (container, stream) before the first frame.
    """
    import av

    try:
        with av.open(str(path), "w") as container:
            if codec == "libx264":
                options = {"preset": "ultrafast"} | (options or {})
            stream = container.add_stream(codec, rate=rate, options=options or {})
            stream.height, stream.width = size
            stream.pix_fmt = pix_fmt
            stream.codec_context.thread_count = 1
            if aspect is not None:
                stream.codec_context.sample_aspect_ratio = aspect
            if stamps is not None:
                stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            if prepare is not None:
                prepare(container, stream)
            for i in range(count):
                frame = av.VideoFrame.from_ndarray(picture(i, *size), format="rgb24")
                if stamps is not None:
                    frame.pts, frame.time_base = round(stamps[i] * 1000), Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"optional package absent: encoder {codec} {pix_fmt}: {error}")
    return path


def repeat_packets(segments: list[Path], path: Path, times: int) -> Path:
    """Remuxes whole constant-rate clips one after the other, round and round, `times` clips in all: no encoding."""
    import av

    packets, template = [], None
    for segment in segments:
        with av.open(str(segment)) as source:
            stream = source.streams.video[0]
            kept = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in source.demux(stream) if p.size]
            packets.append((kept, len(kept), stream.average_rate, stream.time_base))
    source = av.open(str(segments[0]))
    template = source.streams.video[0]
    with av.open(str(path), "w") as out, source:
        stream = out.add_stream_from_template(template)
        shift = 0
        for i in range(times):
            kept, count, rate, base = packets[i % len(packets)]
            for data, pts, dts, is_key in kept:
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, base
                packet.pts, packet.dts, packet.is_keyframe = pts + shift, dts + shift, is_key
                out.mux(packet)
            shift += round(count / rate / base)
    return path
