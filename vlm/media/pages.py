"""One door for documents: a PDF, a TIFF of several pages or a single picture as a list of pages, opened one by one.

A `PageRef` says where a page stands; only its number of pages is read when a document is opened.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from vlm.errors import SampleError
from vlm.media.frames import is_animation, page_frames
from vlm.media.image import as_file, existing_file, is_dicom, load_image, open_picture, read_head
from vlm.media.pdf import DPI, count_pages, is_pdf, name_of, page_size, render_page
from vlm.media.sizes import image_size, shown_size

_RANGE = re.compile(r"(\d*)\s*(-?)\s*(\d*)")


@dataclass(frozen=True)
class PageRef:
    """One page of a document, not yet opened; small and picklable, so it travels to workers.

    Attributes:
        path: The file, or its bytes.
        number: Page number as people count, from 1.
        dpi: Dots an inch at which a PDF page is rendered; pictures keep their own pixels.
        kind: "pdf", "tiff" or "image".
        frame: Where the page stands in a TIFF.
    """

    path: str | bytes = field(repr=False)
    number: int = 1
    dpi: float = DPI
    kind: str = "pdf"
    frame: int = 0

    def open(self) -> Image.Image:
        """The page as an upright RGB image. Raises SampleError as `load_image` and `vlm.media.pdf` do."""
        if self.kind == "pdf":
            return render_page(self.path, self.number, self.dpi)
        return load_image(self.path, frame=self.frame if self.kind == "tiff" else None)

    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of what `open` gives; reads the header only (DICOM is opened)."""
        if self.kind == "pdf":
            return page_size(self.path, self.number, self.dpi)
        if self.kind == "image":
            return image_size(self.path)
        with open_picture(as_file(self.path), name_of(self.path)) as image:
            image.seek(self.frame)
            return shown_size(image)

    def __repr__(self) -> str:
        return f"PageRef({name_of(self.path) or 'bytes'}, page {self.number})"


def open_document(source, pages: str | int | Sequence[int] | None = None, dpi: float = DPI) -> list[PageRef]:
    """The pages of a PDF, of a TIFF or of any single picture; told apart by their contents, not by the name.

    Args:
        source: A path, bytes, a binary file object, or {"bytes", "path"} of a data set.
        pages: Which, from 1, in the order wanted: "1-3,5", "2-", "-3", 4, [1, 2]; None: all.
        dpi: For PDF pages.

    Raises:
        SampleError: missing_file, empty_file, remote_media, bad_pages, bad_dpi, animation (an animated GIF, WebP, PNG
            or AVIF is no document), those of `vlm.media.pdf` and, for pictures, of `load_image`.
    """
    if isinstance(dpi, bool) or not isinstance(dpi, (int, float)) or not 0 < dpi < 10_000:
        raise SampleError(f"dpi must be a positive number, not {dpi!r}", reason="bad_dpi")
    source = _plain(source)
    name = name_of(source)
    kind, frames = _kind(source)
    numbers = parse_pages(pages, len(frames), name)
    return [PageRef(source, number, dpi, kind, frames[number - 1]) for number in numbers]


def parse_pages(pages, count: int, path: str | None = None) -> list[int]:
    """Page numbers as people write them -> a list of numbers from 1 to `count`, in the order written.

    Raises SampleError("bad_pages") for anything that is no page of a document of `count` pages.
    """
    if pages is None:
        return list(range(1, count + 1))
    if isinstance(pages, str):
        ranges = [_range(part.strip(), count, path) for part in pages.split(",")]
    else:
        numbers = pages if isinstance(pages, (list, tuple)) else [pages]
        if any(isinstance(number, bool) or not isinstance(number, int) for number in numbers):
            raise _bad_pages(f"pages {pages!r:.80} are no page numbers", path)
        ranges = [(number, number) for number in numbers]
    if not ranges:
        raise _bad_pages("no page is asked for", path)
    for first, last in ranges:
        for number in (first, last):
            if not 1 <= number <= count:
                have = "1 page" if count == 1 else f"{count} pages"
                raise _bad_pages(f"page {number} is not in a document of {have}; pages count from 1", path)
        if first > last:
            raise _bad_pages(f"pages {first}-{last} run backwards: write {last}-{first}", path)
    return [number for first, last in ranges for number in range(first, last + 1)]


def _range(text: str, count: int, path: str | None) -> tuple[int, int]:
    found = _RANGE.fullmatch(text)
    if found is None or not (found[1] or found[3]):
        raise _bad_pages(f"pages {text!r} are not of the form 1-3,5 or 2-", path)
    if not found[2]:
        return int(text), int(text)
    first = int(found[1] or 1)
    return first, int(found[3]) if found[3] else max(first, count)


def _bad_pages(message: str, path: str | None) -> SampleError:
    return SampleError(message, path=path, reason="bad_pages")


def _plain(source) -> str | bytes:
    """Any source -> an existing path, or bytes that are not empty."""
    if isinstance(source, dict):
        source = source.get("bytes") or source.get("path")
    if hasattr(source, "read"):
        source = source.read()
    if isinstance(source, (bytes, bytearray)):
        if not source:
            raise SampleError("document data is empty", reason="empty_file")
        return bytes(source)
    if isinstance(source, str) and (source.startswith("data:") or "://" in source):
        message = f"{source[:80]!r} is not a file: download the document first"
        raise SampleError(message, reason="remote_media")
    if not isinstance(source, (str, os.PathLike)):
        raise SampleError(f"a document is a path or bytes, not {type(source).__name__}", reason="no_media")
    return str(existing_file(source, "document"))


def _kind(source: str | bytes) -> tuple[str, list[int]]:
    """("pdf" | "tiff" | "image", where each page stands in the file)."""
    if is_pdf(read_head(source)):
        return "pdf", list(range(count_pages(source)))
    if is_dicom(source):
        return "image", [0]
    with open_picture(as_file(source), name_of(source)) as image:
        if is_animation(image):
            message = (
                f"an animated {image.format} of {image.n_frames} frames is no document: use it as a video, or as an "
                "image (its first frame)"
            )
            raise SampleError(message, path=name_of(source), reason="animation")
        try:
            return ("tiff" if image.format == "TIFF" else "image"), page_frames(image)
        except Exception as error:  # a broken directory of pages
            raise SampleError(f"cannot read pages: {error}", path=name_of(source), reason="unreadable_image") from error
