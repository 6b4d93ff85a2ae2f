"""How large a compressed picture says it is, from the first bytes of JPEG 2000, JPEG and JPEG-LS streams.

A damaged stream may claim any size, and decoders reserve memory for what it claims: it is compared with the DICOM
header before it is decoded.
"""

import struct

_J2K, _JPEG = b"\xff\x4f\xff\x51", b"\xff\xd8"
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF markers; F7 is that of JPEG-LS


def codestream_size(data: bytes) -> tuple[int, int, int] | None:
    """(height, width, components) as the stream declares them; None for other formats or damaged heads.

    JPEG 2000: ISO/IEC 15444-1 A.5.1, bare or in a JP2 box; JPEG: ISO/IEC 10918-1 B.2.2.
    """
    at = data[:512].find(_J2K)
    if at >= 0:
        if len(data) < at + 42:
            return None
        width, height, left, top = struct.unpack_from(">4I", data, at + 8)
        return height - top, width - left, struct.unpack_from(">H", data, at + 40)[0]
    if not data.startswith(_JPEG):
        return None
    at = 2
    while at + 10 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES:
            height, width, count = struct.unpack_from(">HHB", data, at + 5)
            return height, width, count
        at += 2 + max(2, struct.unpack_from(">H", data, at + 2)[0])
    return None
