"""Draws short clips of coloured shapes and writes them as mp4 files with PyAV.

The picture is a torus: what leaves on one side comes back on the other. Start places are uniform over it, so the place
of a shape in a single frame, and the unordered set of its places, say nothing about the direction in which it moves.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHAPES = ("disc", "square", "diamond", "ring")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 235),
    "yellow": (235, 210, 40),
    "white": (245, 245, 245),
    "pink": (240, 90, 200),
}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class Actor:
    """One shape: centre `x`, `y` at frame 0 and velocity in pixels, visible in frames `first` ≤ t < `last`."""

    shape: str
    colour: str
    x: int
    y: int
    radius: int
    velocity: tuple[int, int] = (0, 0)
    first: int = 0
    last: int = 1 << 30


def draw_clip(actors: list[Actor], frames: int, size: int, background: int) -> np.ndarray:
    """Frames (T, size, size, 3) uint8 of `actors` on a grey background; later actors are drawn over earlier ones."""
    clip = np.full((frames, size, size, 3), background, np.float32)
    time, axis = np.arange(frames)[:, None], np.arange(size)[None, :]
    for actor in actors:
        # Signed distance to the outline on the torus, one column and one row vector a frame; (T, 1, W) and (T, H, 1).
        dx, dy = (
            ((axis - start - speed * time + size // 2) % size - size // 2).astype(np.float32)
            for start, speed in zip((actor.x, actor.y), actor.velocity)
        )
        dx, dy = np.abs(dx)[:, None, :], np.abs(dy)[:, :, None]
        if actor.shape == "square":
            distance = np.maximum(dx, dy) - 0.85 * actor.radius
        elif actor.shape == "diamond":
            distance = (dx + dy) * 0.75 - 0.85 * actor.radius
        else:
            distance = np.sqrt(dx * dx + dy * dy) - actor.radius
            if actor.shape == "ring":
                distance = np.abs(distance + 0.25 * actor.radius) - 0.25 * actor.radius
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        visible = ((time >= actor.first) & (time < actor.last)).astype(np.float32)[:, :, None, None]
        clip += cover * visible * (np.asarray(COLOURS[actor.colour], np.float32) - clip)
    return clip.round().astype(np.uint8)


def cell_labels(actors: list[Actor], times: list[int], size: int, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """What a vision base can be asked about a clip without words: colour and motion of the shape centred in each cell.

    times: frames to label (of a tubelet: its first). cell: pixels a side. Returns two int64 arrays (T, cells), row by
    row: colours (0 none, then in the order of `COLOURS`) and motions (0 none, 1 still, then in that of `DIRECTIONS`).
    """
    side = size // cell
    colours, motions = np.zeros((2, len(times), side * side), np.int64)
    names, ways = list(COLOURS), [(0, 0), *DIRECTIONS.values()]
    for row, time in enumerate(times):
        for actor in actors:
            if actor.first <= time < actor.last:
                x, y = ((p + v * time) % size // cell for p, v in zip((actor.x, actor.y), actor.velocity))
                colours[row, y * side + x] = 1 + names.index(actor.colour)
                way = tuple(int(np.sign(v)) for v in actor.velocity)
                motions[row, y * side + x] = 1 + ways.index(way)
    return colours, motions


def write_mp4(path: Path, clip: np.ndarray, fps: int) -> None:
    """Encode `clip` (T, H, W, 3) uint8 at high quality: H.264 where the installed FFmpeg has x264, MPEG-4 otherwise.

    Height and width must be even (4:2:0 chroma). Needs PyAV: the `video` extra.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("writing videos needs PyAV: pip install 'radio-vlm[video]'") from error
    if "libx264" in av.codecs_available:
        codec, options = "libx264", {"preset": "veryfast", "crf": "8"}
    else:
        codec, options = "mpeg4", {"qscale": "2", "flags": "qscale"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in clip:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
