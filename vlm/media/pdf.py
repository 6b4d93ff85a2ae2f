"""Pages of PDF files as pictures, through PDFium (pypdfium2): rotation, crop box, annotations and form fields as shown.

PDFium is not thread-safe: every call here holds one lock, and a document is open only while one page is read. What
travels between threads and workers is a file name and a page number, never an open document.
"""

import logging
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from vlm.errors import SampleError

logger = logging.getLogger(__name__)
DPI = 144  # twice PDF's own 72 units an inch: 9-point print is 18 pixels high
MAX_PAGE_PIXELS = 2**25  # an A0 poster at 144 dpi fits; a larger page is rendered at fewer dpi
_HEAD = 1024  # readers accept anything before "%PDF-" within so many bytes
_OTHER_MAGIC = (b"\x89PNG", b"\xff\xd8", b"GIF8", b"II*\0", b"MM\0*", b"RIFF", b"BM")
_lock = threading.RLock()


def _renew_lock() -> None:
    """A child forked while another thread held the lock would wait for ever."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def is_pdf(head: bytes) -> bool:
    """By the magic bytes, not by the suffix; `head` holds the first 1024 bytes or more."""
    return b"%PDF-" in head[:_HEAD] and not head.startswith(_OTHER_MAGIC)


def count_pages(source: str | os.PathLike | bytes) -> int:
    """Number of pages of a file (or its bytes), at least 1.

    Raises:
        SampleError: missing_file, encrypted_pdf, unreadable_pdf, no_pages.
    """
    with _opened(source) as document:
        return len(document)


def page_size(source, number: int, dpi: float = DPI, max_pixels: int = MAX_PAGE_PIXELS) -> tuple[int, int]:
    """(height, width) in pixels of what `render_page` would give, without rendering."""
    with _opened(source) as document, _page(document, source, number) as page:
        return _pixels(page, _scale(page, source, number, dpi, max_pixels))


def render_page(source, number: int, dpi: float = DPI, max_pixels: int = MAX_PAGE_PIXELS) -> Image.Image:
    """Page `number` (from 1) on white paper as RGB, at `dpi` or at as many as keep it within `max_pixels`.

    Raises:
        SampleError: missing_file, encrypted_pdf, unreadable_pdf, no_pages, bad_pages.
    """
    with _opened(source) as document:
        document.init_forms()  # before a page is loaded; without it form fields stay invisible
        with _page(document, source, number) as page:
            scale = _scale(page, source, number, dpi, max_pixels)
            bitmap = page.render(scale=scale, may_draw_forms=True, draw_annots=True)
            try:
                return bitmap.to_pil().convert("RGB")  # a copy of its own
            finally:
                bitmap.close()


@contextmanager
def _opened(source) -> Iterator:
    """The open document, under the lock, with PDFium's errors as SampleError; closed again at the end."""
    try:
        import pypdfium2
    except ImportError as error:
        raise ImportError("reading PDF files needs pypdfium2: pip install 'radio-vlm[documents]'") from error
    path = name_of(source)
    with _lock:
        try:
            document = pypdfium2.PdfDocument(bytes(source) if path is None else Path(path))
        except OSError as error:
            reason = "missing_file" if isinstance(error, FileNotFoundError) else "unreadable_pdf"
            raise SampleError(f"cannot open PDF: {error}", path=path, reason=reason) from error
        except pypdfium2.PdfiumError as error:
            if _is_only_empty(source):
                raise SampleError("the PDF has no pages", path=path, reason="no_pages") from error
            if "password" in str(error).lower() or "security" in str(error).lower():
                message = "the PDF is encrypted and needs a password: save a copy without one"
                raise SampleError(message, path=path, reason="encrypted_pdf") from error
            raise SampleError(f"cannot open PDF: {error}", path=path, reason="unreadable_pdf") from error
        try:
            yield document
        except pypdfium2.PdfiumError as error:
            raise SampleError(f"cannot read PDF: {error}", path=path, reason="unreadable_pdf") from error
        finally:
            document.close()


def _is_only_empty(source) -> bool:
    """Whether PDFium opens what pypdfium2 refused: files of no pages, for which the reason it gives is stale."""
    from pypdfium2 import raw

    data = bytes(source) if isinstance(source, (bytes, bytearray)) else Path(source).read_bytes()
    document = raw.FPDF_LoadMemDocument64(data, len(data), None)
    if document:
        raw.FPDF_CloseDocument(document)
    return bool(document)


@contextmanager
def _page(document, source, number: int) -> Iterator:
    import pypdfium2

    if not 1 <= number <= len(document):
        message = f"page {number} is not in a PDF of {len(document)} pages"
        raise SampleError(message, path=name_of(source), reason="bad_pages")
    try:
        page = document[number - 1]
    except pypdfium2.PdfiumError as error:
        message = f"cannot read page {number} of the PDF: {error}"
        raise SampleError(message, path=name_of(source), reason="unreadable_pdf") from error
    try:
        yield page
    finally:
        page.close()


def _scale(page, source, number: int, dpi: float, max_pixels: int) -> float:
    """Pixels a PDF unit (1/72 inch); fewer than `dpi` asks for where the page would exceed `max_pixels`."""
    width, height = page.get_size()
    if not (width > 0 and height > 0 and math.isfinite(width * height)):
        message = f"page {number} measures {width:g} x {height:g}"
        raise SampleError(message, path=name_of(source), reason="unreadable_pdf")
    scale = dpi / 72
    if math.prod(_pixels(page, scale)) > max_pixels:
        scale = math.sqrt(max_pixels / (width * height))
        while math.prod(_pixels(page, scale)) > max_pixels:  # rounding up to whole pixels
            scale *= 0.999
        logger.warning(
            "%s, page %d: %.0f x %.0f inches at %g dpi exceed %d pixels; rendered at %.3g dpi",
            *(name_of(source) or "PDF", number, width / 72, height / 72, dpi, max_pixels, scale * 72),
        )
    return scale


def _pixels(page, scale: float) -> tuple[int, int]:
    """(height, width) of the bitmap, rounded up as pypdfium2 does."""
    width, height = page.get_size()
    return math.ceil(height * scale), math.ceil(width * scale)


def name_of(source) -> str | None:
    """The path of a source for messages; None for bytes."""
    return None if isinstance(source, (bytes, bytearray)) else os.fspath(source)
