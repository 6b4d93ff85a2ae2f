"""Small ICC profiles made on the spot, so wrong that nobody can miss whether a picture is shown through them."""

import itertools
import struct

D50 = (0.9642, 1.0, 0.8249)
# sRGB's primaries adapted to D50 (the colorants of every sRGB profile)
RED, GREEN, BLUE = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _profile(device: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    name = b"test"
    described = b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name + bytes(1 + 78)
    common = {b"desc": described, b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": b"XYZ " + bytes(4) + _fixed(*D50)}
    tags = common | tags
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I", start + len(body)) + bytes(4) + b"\2\x40\0\0" + device + space + pcs
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(*D50)
    return head + bytes(128 - len(head)) + table + body


def swapped_rgb() -> bytes:
    """An RGB profile whose first channel is green light and whose second is red."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(2.2 * 256))
    lights = {b"rXYZ": GREEN, b"gXYZ": RED, b"bXYZ": BLUE}
    tags = {tag: b"XYZ " + bytes(4) + _fixed(*light) for tag, light in lights.items()}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def steep_grey() -> bytes:
    """A grey profile of gamma 1: the middle value is a light grey."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": b"curv" + bytes(4) + struct.pack(">IH", 1, 256)})


def red_cyan() -> bytes:
    """A CMYK profile in which the cyan ink looks red (Lab 53, 80, 67), black is black and everything else paper."""
    white, red, black = (255, 128, 128), (135, 208, 195), (0, 128, 128)
    inks = itertools.product((0, 1), repeat=4)  # corners of the table, cyan slowest
    colours = [black if k else red if c and not (m or y) else white for c, m, y, k in inks]
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += ramp * 4 + b"".join(map(bytes, colours)) + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})
