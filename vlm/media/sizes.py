"""How large a picture is, from its header alone: what measuring a data set needs, at a tenth of the cost of decoding.

The answer is that of `load_image(source).size`, EXIF turn included. Formats whose header may differ from what is
decoded (icons, vector graphics, DICOM) are decoded.
"""

import os

from PIL import Image

from vlm.errors import SampleError
from vlm.media.image import (
    MAX_PIXELS,
    as_file,
    existing_file,
    is_dicom,
    load_image,
    open_picture,
    read_head,
    seek_page,
)
from vlm.media.pdf import MAX_PAGE_PIXELS, count_pages, is_pdf, page_size
from vlm.rgb import ORIENTATION

HEADER_TELLS = {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"}
PNG_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
ORIENTED_BY = (b"Raw profile type", b"XML:com.adobe.xmp")


def image_size(source, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of the picture `vlm.media.image.load_image` makes of a path, bytes or a data set's row.

    Raises:
        SampleError: missing_file, empty_file, too_large, unreadable_image, many_pages; damage behind the header is seen
            by `load_image` alone.
    """
    if isinstance(source, dict):
        source = source.get("bytes") or source.get("path")
    remote = isinstance(source, str) and source.startswith(("http://", "https://", "data:"))
    if remote or not isinstance(source, (str, bytes, bytearray, os.PathLike)):
        return load_image(source, max_pixels).size[::-1]
    if isinstance(source, (bytes, bytearray)):
        source, name = bytes(source), None
        if not source:
            raise SampleError("image data is empty", reason="empty_file")
    else:
        source = name = existing_file(source, "image")
    if is_pdf(read_head(source)) and not is_dicom(source):
        if count_pages(source) > 1:
            load_image(source, max_pixels)  # says what to do
        return page_size(source, 1, max_pixels=min(max_pixels, MAX_PAGE_PIXELS))
    if is_dicom(source):
        return load_image(source, max_pixels).size[::-1]
    with open_picture(as_file(source), name) as image:
        if image.format not in HEADER_TELLS or (image.format == "PNG" and _is_oriented_at_the_end(source)):
            return load_image(source, max_pixels).size[::-1]
        width, height = image.size
        if width * height > max_pixels:
            message = f"image of {width} x {height} pixels is larger than max_pixels={max_pixels}"
            raise SampleError(message, path=name, reason="too_large")
        if width < 1 or height < 1:
            message = f"image of {width} x {height} pixels has no area"
            raise SampleError(message, path=name, reason="unreadable_image")
        if image.format == "TIFF":
            seek_page(image, name, None)
        return shown_size(image)


def shown_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of an opened picture after the turn its EXIF asks for; decodes nothing."""
    if image.format == "TIFF":  # whose `size` recent Pillow turns, and whose `getexif` stays with the first page
        size, orientation = (image.tag_v2[256], image.tag_v2[257]), image.tag_v2.get(ORIENTATION, 1)
    else:
        size = image.size
        try:
            orientation = Image.Image.getexif(image).get(ORIENTATION, 1)  # that of PNG would decode the picture
        except Exception:  # noqa: BLE001 - damaged EXIF turns nothing, as in `vlm.rgb.to_rgb`
            orientation = 1
    return size if orientation in (5, 6, 7, 8) else size[::-1]


def _is_oriented_at_the_end(source) -> bool:
    """Whether a PNG says behind its pixels how it is turned."""
    with as_file(source) if isinstance(source, bytes) else open(source, "rb") as file:
        file.seek(8)
        behind = False
        while len(chunk := file.read(8)) == 8:
            length, kind = int.from_bytes(chunk[:4], "big"), chunk[4:]
            behind |= kind == b"IDAT"
            if behind and kind in PNG_METADATA:
                if kind == b"eXIf" or file.read(min(length, 32)).startswith(ORIENTED_BY):
                    return True
                file.seek(-min(length, 32), 1)
            file.seek(length + 4, 1)
    return False
