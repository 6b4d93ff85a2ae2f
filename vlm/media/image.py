"""One door for still images: whatever Pillow opens, DICOM and one-page PDF, as an upright 8-bit RGB image.

Real data is full of empty, cut-off and enormous files; each is refused with its path and a reason, before it can crash
a run hours in.
"""

import base64
import contextlib
import functools
import io
import logging
import os
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vlm.errors import SampleError
from vlm.media.frames import page_frames
from vlm.media.nifti import is_nifti
from vlm.media.pdf import MAX_PAGE_PIXELS, count_pages, is_pdf, render_page
from vlm.rgb import to_rgb

MAX_PIXELS = 178_956_970  # Pillow's own limit for decompression bombs
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_HEAD = 1024

logger = logging.getLogger(__name__)


def load_image(source, max_pixels: int = MAX_PIXELS, frame: int | None = None) -> Image.Image:
    """A path, URL, data URI, bytes, file object or PIL image -> PIL RGB image.

    Of a TIFF of several pages the first is shown (said once a file in the log), of an animation the first frame, of a
    multi-frame DICOM the middle one. A PDF of one page is rendered; one of several is for `document` items.

    Args:
        max_pixels: A larger picture is refused before it is decoded.
        frame: Where in a multi-page TIFF the wanted page stands, from 0.

    Raises:
        SampleError: missing_file, empty_file, too_large, truncated_image, unreadable_image, many_pages, is_volume, and
            those of DICOM and PDF.
    """
    if isinstance(source, Image.Image):
        return _convert(source, None, max_pixels)
    if isinstance(source, dict):  # a row of a Hugging Face dataset: {"bytes": ..., "path": ...}
        source = source.get("bytes") or source.get("path")
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return _convert(_fetch(source), source, max_pixels)
    name = None
    if isinstance(source, str) and source.startswith("data:"):
        source, name = base64.b64decode(source.partition(",")[2]), "data URI"
    elif hasattr(source, "read"):
        source, name = source.read(), getattr(source, "name", None)
    if isinstance(source, (bytes, bytearray)):
        source = bytes(source)
        if not source:
            raise SampleError("image data is empty", path=name, reason="empty_file")
    else:
        source = name = existing_file(source, "image")
    if is_dicom(source):
        from vlm.media.dicom import read_dicom

        return read_dicom(as_file(source), max_pixels=max_pixels).image
    if not isinstance(source, bytes) and is_nifti(source):
        message = (
            "a NIfTI file is a volume, no single image: use an item {'type': 'volume', 'volume': FILE, 'modality': "
            "'CT' or 'MR'}, or save its slices as images"
        )
        raise SampleError(message, path=name, reason="is_volume")
    if is_pdf(read_head(source)):
        return _only_page(source, name, max_pixels)
    with open_picture(as_file(source), name) as image:
        if image.format == "TIFF":
            seek_page(image, name, frame)
        return _convert(image, name, max_pixels)


def is_dicom(source: Path | bytes) -> bool:
    """By the magic "DICM" at byte 128, or by a file's suffix (old files lack the preamble)."""
    by_suffix = not isinstance(source, bytes) and Path(source).suffix.lower() in _DICOM_SUFFIXES
    return by_suffix or read_head(source)[128:132] == b"DICM"


def existing_file(source: str | os.PathLike, kind: str) -> Path:
    """The path of a file that is there and not empty. Raises SampleError: missing_file, empty_file."""
    path = Path(os.path.expanduser(source))
    if not path.is_file():
        raise SampleError(f"{kind} file does not exist", path=path, reason="missing_file")
    if path.stat().st_size == 0:
        raise SampleError(f"{kind} file is empty", path=path, reason="empty_file")
    return path


def read_head(source: Path | str | bytes) -> bytes:
    """The first bytes of a file, in which formats name themselves."""
    if isinstance(source, bytes):
        return source[:_HEAD]
    with open(source, "rb") as file:
        return file.read(_HEAD)


def as_file(source: Path | str | bytes):
    """What readers open: bytes as a binary file, a path as it is."""
    return io.BytesIO(source) if isinstance(source, bytes) else source


def open_picture(file, path) -> Image.Image:
    """`Image.open`, header only, with its errors as SampleError: too_large, unreadable_image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound is checked in _convert
            return Image.open(file)
    except Image.DecompressionBombError as error:
        raise SampleError(f"image is too large: {error}", path=path, reason="too_large") from error
    except UnidentifiedImageError as error:
        raise SampleError("not an image in a format Pillow knows", path=path, reason="unreadable_image") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise SampleError(f"cannot open image: {error}", path=path, reason="unreadable_image") from error


def _only_page(source: Path | bytes, name, max_pixels: int) -> Image.Image:
    """The page of a PDF that has just one."""
    if (count := count_pages(source)) > 1:
        message = (
            f"a PDF of {count} pages is no single image: use an item {{'type': 'document', 'document': FILE}}, with "
            "'pages': '1' for the first page alone"
        )
        raise SampleError(message, path=name, reason="many_pages")
    return render_page(source, 1, max_pixels=min(max_pixels, MAX_PAGE_PIXELS))


def seek_page(image: Image.Image, name, frame: int | None) -> None:
    """Goes to the wanted page of a TIFF; without one to the first, which a log line says once a file."""
    try:
        if frame is not None:
            image.seek(frame)
        elif (count := len(page_frames(image))) > 1:
            _note_pages(str(name or "TIFF"), count)
    except Exception as error:
        if frame is not None:
            raise SampleError(f"cannot read page: {error}", path=name, reason="unreadable_image") from error
        with contextlib.suppress(Exception):
            image.seek(0)  # what stands behind a readable first page may be broken


@functools.lru_cache(maxsize=1024)
def _note_pages(name: str, count: int) -> None:
    logger.info("%s holds %d pages; as an image its first is shown, a document item shows them all", name, count)


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
