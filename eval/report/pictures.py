"""Pictures for the page: small data URIs of what the model was shown. Only pixels go in, nothing a file says beside."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

from PIL import Image

MAX_SIDE = 512
FRAMES = 8
SLICES = 4


def data_uri(image: Image.Image, max_side: int = MAX_SIDE) -> str:
    """An image as a data URI, shrunk to `max_side`; PNG where that is smaller (drawings), else JPEG (photos)."""
    image = image.convert("RGB")  # a copy
    image.info = {}  # comments and profiles of the file, which may name a patient and would be written along
    if max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    best = None
    for kind, options in (("PNG", {"optimize": True}), ("JPEG", {"quality": 84})):
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        if best is None or len(stream.getvalue()) < 0.5 * len(best[1]):  # sharp text is worth twice the bytes
            best = (kind.lower(), stream.getvalue())
    return f"data:image/{best[0]};base64,{base64.b64encode(best[1]).decode()}"


def columns_for(frames: int) -> int:
    """How many columns show `frames` pictures of one video in a panel a little wider than high, without gaps."""
    return min(range(1, frames + 1), key=lambda c: (-frames % c, abs(math.log(c / math.ceil(frames / c) / 1.4))))


def video_frames(path: str, video: dict[str, Any] | None = None) -> list[Image.Image]:
    """The frames that the model was shown of a video."""
    from vlm.media import load_video

    video = video or {}
    clip = load_video(path, min(video.get("max_frames") or FRAMES, FRAMES), video.get("fps") or 2.0)
    return [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in clip.frames]


def is_video(path: str) -> bool:
    """By suffix: enough for a page about files that were read before."""
    return Path(path).suffix.lower() in (".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif")


def is_volume(path: str) -> bool:
    """A folder of slices, or NIfTI by its suffix."""
    from vlm.media.nifti import is_nifti

    return Path(path).is_dir() or is_nifti(path)


def volume_slices(path: str, count: int = SLICES) -> list[Image.Image]:
    """Slices of a volume, evenly spaced, through its own window. The file need not say its modality to be looked at."""
    from vlm.media.volume_pictures import volume_pictures
    from vlm.media.volumes import read_unnamed

    return [picture for _, picture in volume_pictures(read_unnamed(path), count)[1]]


def still(path: str) -> Image.Image:
    """An image file of any kind the model reads, DICOM included; of a volume the slice in the middle."""
    from vlm.media import load_image

    return volume_slices(path, 1)[0] if is_volume(path) else load_image(path)
