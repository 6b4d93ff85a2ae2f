"""Animated GIF, WebP and PNG as videos, through Pillow: each frame's duration tells when the next one is shown.

Recognised by content, whatever the suffix. A still GIF or WebP is an animation of one frame.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from vlm.errors import SampleError
from vlm.media.image import MAX_PIXELS as MAX_IMAGE_PIXELS
from vlm.media.video_pixels import FrameStore, shown_size
from vlm.rgb import to_rgb

logger = logging.getLogger(__name__)
PNG = b"\x89PNG\r\n\x1a\n"
SHORTEST = 10  # milliseconds: what claims to last no longer is shown for `SLOW`, as browsers do
SLOW = 100  # milliseconds
MAX_FRAMES = 100_000
MAX_ANIMATION_PIXELS = 1 << 34  # of all frames: 8,000 of 1080p
BROKEN = (OSError, EOFError, ValueError, SyntaxError, IndexError)  # what Pillow raises on damaged frames


def is_animation(path: Path) -> bool:
    """GIF or WebP by their magic; PNG by its animation control chunk, which stands before the pixels."""
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:6] in (b"GIF87a", b"GIF89a") or (head[:4] == b"RIFF" and head[8:] == b"WEBP"):
            return True
        if head[:8] != PNG:
            return False
        file.seek(8)
        while len(chunk := file.read(8)) == 8 and chunk[4:] != b"IDAT":
            if chunk[4:] == b"acTL":
                return True
            file.seek(int.from_bytes(chunk[:4], "big") + 4, 1)
    return False


def load_animation(
    path: Path, plan: Callable[[float], list[float]], max_pixels: int
) -> tuple[FrameStore, float | None]:
    """Decodes twice: once for the durations, once keeping the frames on screen at the planned times.

    Args:
        plan: Length in seconds -> ascending times to sample.

    Returns:
        The frames, and frames a second if all last equally long, else None.

    Raises:
        SampleError: unreadable_video, too_large, no_frames.
    """
    lengths = [length for length, _ in _frames(path)]
    if not lengths:
        raise SampleError("no frame of the animation can be read: truncated", path=path, reason="unreadable_video")
    starts = [0.0, *np.cumsum(lengths[:-1]).tolist()]
    wanted = sorted({_shown(starts, time) for time in plan((starts[-1] + lengths[-1]) / 1000)})
    store, left = FrameStore(len(wanted), 1.0, max_pixels), set(wanted)
    for number, (_, image) in enumerate(_frames(path)):
        if number in left:
            picture = to_rgb(image)
            size = shown_size(*picture.size, 1.0, store.max_pixels)
            if size != picture.size:
                picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
            store.add_image(starts[number] / 1000, np.asarray(picture))
        if number == wanted[-1]:
            break
    return store, 1000 / lengths[0] if len(set(lengths)) == 1 else None


def _frames(path: Path) -> Iterator[tuple[float, Image.Image]]:
    """(milliseconds, image) of each frame; ends at damage, which is logged unless nothing came before."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound is checked below
            image = Image.open(path)
    except Image.DecompressionBombError as error:
        raise SampleError(f"animation is too large: {error}", path=path, reason="too_large") from error
    except BROKEN as error:
        raise SampleError(f"cannot open animation: {error}", path=path, reason="unreadable_video") from error
    with image:
        if image.width * image.height > MAX_IMAGE_PIXELS:
            message = f"animation of {image.width} x {image.height} pixels is larger than {MAX_IMAGE_PIXELS}"
            raise SampleError(message, path=path, reason="too_large")
        try:
            frames = image.n_frames
        except (EOFError, *BROKEN):  # damaged further on: what comes before is shown
            frames = MAX_FRAMES
        if frames * image.width * image.height > MAX_ANIMATION_PIXELS:  # all are decoded, each builds on the last
            message = f"animation of {frames} frames of {image.width} x {image.height} pixels is too large"
            raise SampleError(message, path=path, reason="too_large")
        for number in range(frames):
            try:
                image.seek(number)
                image.load()
            except EOFError:  # the regular end
                return
            except BROKEN as error:
                if number:
                    logger.warning("%s: the animation ends at damage in frame %d: %s", path, number + 1, error)
                return
            length = image.info.get("duration", 0) or 0
            yield (length if length > SHORTEST else SLOW), image


def _shown(starts: list[float], time: float) -> int:
    """Index of the frame on screen at `time` seconds."""
    return max(0, int(np.searchsorted(starts, time * 1000 + 1, side="right")) - 1)
