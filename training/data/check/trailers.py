"""Whether the end of a picture file is there, told from its last bytes or the sizes in its header, without decoding.

Half-finished downloads are the commonest damage of large data sets; their headers are fine.
"""

import os
import struct
from typing import BinaryIO

from PIL import Image

TAIL = 2048  # bytes; cameras and editors leave some of their own behind the end of a picture
STRIPS = ((273, 279), (324, 325))  # TIFF tags of offsets and byte counts, of strips and of tiles


def has_end(file: BinaryIO, image: Image.Image) -> bool | None:
    """True: the picture's end is in the file; False: it is not where it should be; None: this format does not say.

    Args:
        file: The opened file; its position is left anywhere.
        image: The same, opened by Pillow, header only.
    """
    size = file.seek(0, os.SEEK_END)
    if image.format in ("JPEG", "MPO"):  # compressed data never hold FF D9
        return b"\xff\xd9" in _tail(file, size)
    if image.format == "PNG":
        return b"IEND" in _tail(file, size)
    if image.format == "GIF":
        return _tail(file, size).rstrip(b"\0").endswith(b"\0;")  # the end of the last block, then the file's
    if image.format in ("WEBP", "BMP"):
        place, extra = (4, 8) if image.format == "WEBP" else (2, 0)
        file.seek(place)
        promised = struct.unpack("<I", file.read(4))[0]
        return size >= promised + extra if promised else None  # some programs leave a BMP's 0
    if image.format == "TIFF":
        for offsets, counts in STRIPS:
            if offsets in image.tag_v2 and counts in image.tag_v2:
                ends = (start + length for start, length in zip(image.tag_v2[offsets], image.tag_v2[counts]))
                return max(ends, default=0) <= size
    return None


def _tail(file: BinaryIO, size: int) -> bytes:
    file.seek(max(0, size - TAIL))
    return file.read(TAIL)
