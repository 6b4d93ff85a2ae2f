"""One door for still images: whatever Pillow opens, and DICOM, as an upright 8-bit RGB image.

Real data is full of empty, cut-off and enormous files; each is refused with its path and a reason, before it can crash
a run hours in.
"""

import base64
import io
import os
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vlm.errors import SampleError
from vlm.rgb import to_rgb

MAX_PIXELS = 178_956_970  # Pillow's own limit for decompression bombs
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


def load_image(source, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A path, URL, data URI, bytes, file object or PIL image -> PIL RGB image.

    Raises:
        SampleError: missing_file, empty_file, too_large, truncated_image, unreadable_image, and those of DICOM.
    """
    if isinstance(source, Image.Image):
        return _convert(source, None, max_pixels)
    if isinstance(source, dict):  # a row of a Hugging Face dataset: {"bytes": ..., "path": ...}
        source = source.get("bytes") or source.get("path")
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return _convert(_fetch(source), source, max_pixels)
    if isinstance(source, str) and source.startswith("data:"):
        return _from_bytes(base64.b64decode(source.partition(",")[2]), "data URI", max_pixels)
    if isinstance(source, (bytes, bytearray)):
        return _from_bytes(bytes(source), None, max_pixels)
    if hasattr(source, "read"):
        return _from_bytes(source.read(), getattr(source, "name", None), max_pixels)
    path = Path(os.path.expanduser(source))
    if not path.is_file():
        raise SampleError("image file does not exist", path=path, reason="missing_file")
    if path.stat().st_size == 0:
        raise SampleError("image file is empty", path=path, reason="empty_file")
    if is_dicom(path):
        from vlm.media.dicom import read_dicom

        return read_dicom(path, max_pixels=max_pixels).image
    return _decode(path, path, max_pixels)


def is_dicom(path: Path) -> bool:
    """By the magic "DICM" at byte 128, or by suffix (old files lack the preamble)."""
    with open(path, "rb") as file:
        head = file.read(132)
    return head[128:132] == b"DICM" or path.suffix.lower() in _DICOM_SUFFIXES


def _from_bytes(data: bytes, path, max_pixels: int) -> Image.Image:
    if not data:
        raise SampleError("image data is empty", path=path, reason="empty_file")
    if data[128:132] == b"DICM":
        from vlm.media.dicom import read_dicom

        return read_dicom(io.BytesIO(data), max_pixels=max_pixels).image
    return _decode(io.BytesIO(data), path, max_pixels)


def _decode(file, path, max_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound is checked below
            image = Image.open(file)
    except Image.DecompressionBombError as error:
        raise SampleError(f"image is too large: {error}", path=path, reason="too_large") from error
    except UnidentifiedImageError as error:
        raise SampleError("not an image in a format Pillow knows", path=path, reason="unreadable_image") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise SampleError(f"cannot open image: {error}", path=path, reason="unreadable_image") from error
    with image:
        return _convert(image, path, max_pixels)


def _convert(image: Image.Image, path, max_pixels: int) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        message = f"image of {width} x {height} pixels is larger than max_pixels={max_pixels}"
        raise SampleError(message, path=path, reason="too_large")
    if width < 1 or height < 1:
        raise SampleError(f"image of {width} x {height} pixels has no area", path=path, reason="unreadable_image")
    try:
        image.load()
        return to_rgb(image)
    except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, struct.error, zlib.error, ...
        cut = "truncated" in str(error).lower() or "broken" in str(error).lower()
        reason = "truncated_image" if cut else "unreadable_image"
        raise SampleError(f"cannot decode image: {error}", path=path, reason=reason) from error


def _fetch(url: str) -> Image.Image:
    from transformers.image_utils import load_image as load_url

    try:
        return load_url(url, timeout=30)
    except Exception as error:
        raise SampleError(f"cannot fetch image: {error}", path=url, reason="unreadable_image") from error
