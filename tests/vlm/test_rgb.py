"""Every mode of Pillow as a person would see it: expected colours, not only that it runs."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.helpers.icc import red_cyan, steep_grey, swapped_rgb
from tests.helpers.processing import picture
from vlm.rgb import to_rgb

WHITE, RED = (255, 255, 255), (255, 0, 0)


def reopened(image: Image.Image, kind: str, **options) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def colour(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, int, int]:
    shown = to_rgb(image)
    assert shown.mode == "RGB" and shown.size == image.size
    return shown.getpixel((x, y))


def near(one, other, tolerance: int = 1) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


def png(depth: int, kind: int, row: bytes, transparent: bytes = b"") -> Image.Image:
    """A PNG of one row, as Pillow itself cannot write it: `kind` 0 grey, 2 RGB, 4 grey + alpha, 6 RGBA."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    width = len(row) * 8 // (depth * {0: 1, 2: 3, 4: 2, 6: 4}[kind])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0))
    clear = chunk(b"tRNS", transparent) if transparent else b""
    data = head + clear + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + data))


def tiff(bits: int, photometric: int, data: bytes, width: int, sample_format: int = 1) -> Image.Image:
    """A grey TIFF of one row: photometric 1 is black at 0, 0 white at 0."""
    tags = [(256, width), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 1)]
    tags += [(279, len(data)), (339, sample_format)]
    data += bytes(len(data) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    body = struct.pack("<H", len(tags)) + entries + bytes(4)
    return Image.open(io.BytesIO(struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + body))


# ---- modes with colours of their own --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 70, (70, 70, 70)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBX", (1, 2, 3, 0), (1, 2, 3)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("CMYK", (0, 255, 255, 0), RED),
        ("CMYK", (0, 0, 0, 128), (127, 127, 127)),
        ("CMYK", (128, 0, 0, 128), (63, 127, 127)),
        ("YCbCr", (76, 85, 255), RED),
        ("YCbCr", (100, 128, 128), (100, 100, 100)),
        ("HSV", (0, 255, 255), RED),
        ("HSV", (85, 255, 255), (0, 255, 0)),
        ("HSV", (85, 0, 90), (90, 90, 90)),
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
        ("LA", (0, 128), (127, 127, 127)),
        ("LA", (0, 0), WHITE),
        ("RGBa", (128, 0, 0, 128), (255, 127, 127)),  # premultiplied: half-clear red
        ("La", (64, 128), (191, 191, 191)),
    ],
)
def test_colours_of_modes(mode: str, value, expected):
    assert near(colour(Image.new(mode, (3, 2), value)), expected)


def test_one_bit():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert colour(image) == (0, 0, 0) and colour(image, 1) == WHITE
    assert [colour(tiff(1, kind, b"\x40", 2), 1) for kind in (0, 1)] == [(0, 0, 0), WHITE], "fax: 0 is white"


def test_palette_with_and_without_transparency():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for x in range(3):
        image.putpixel((x, 0), x)
    assert [colour(image, x) for x in range(3)] == [RED, (0, 255, 0), (0, 0, 255)]
    one_clear = reopened(image, "PNG", transparency=1)
    assert [colour(one_clear, x) for x in range(3)] == [RED, WHITE, (0, 0, 255)]
    by_entry = reopened(image, "PNG", transparency=bytes((255, 128, 0)))
    assert [colour(by_entry, x) for x in range(3)] == [RED, (127, 255, 127), WHITE]
    gif = reopened(image, "GIF", transparency=2)
    assert [colour(gif, x) for x in range(3)] == [RED, (0, 255, 0), WHITE]
    clear = Image.merge("RGBA", [*image.convert("RGB").split(), Image.new("L", (3, 1))])
    assert near(colour(clear.convert("PA")), WHITE)


def test_a_transparent_colour():
    grey = png(8, 0, bytes((0, 7, 9)), struct.pack(">H", 7))
    assert [colour(grey, x) for x in range(3)] == [(0, 0, 0), WHITE, (9, 9, 9)]
    rgb = png(8, 2, bytes((9, 8, 7, 1, 2, 3)), struct.pack(">3H", 9, 8, 7))
    assert rgb.mode == "RGB" and [colour(rgb, x) for x in range(2)] == [WHITE, (1, 2, 3)]
    first = struct.pack(">3H", 0xFF00, 0x8000, 0x1234)
    deep = png(16, 2, first + struct.pack(">3H", 0, 0x100, 0x200), first)
    assert [colour(deep, x) for x in range(2)] == [WHITE, (0, 1, 2)]
    deep_grey = png(16, 0, struct.pack(">3H", 0, 0x8080, 300), struct.pack(">H", 300))
    assert [colour(deep_grey, x) for x in range(3)] == [(0, 0, 0), (128, 128, 128), WHITE]


# ---- deep and float samples -----------------------------------------------------------------------------------------


def test_the_same_grey_in_every_number_format():
    ramp = np.linspace(0, 255, 16).round().astype(np.uint8)[None]
    expected = np.asarray(to_rgb(Image.fromarray(ramp)))
    deep = ramp.astype(np.uint16) * 257
    formats = {
        "I;16": Image.fromarray(deep),
        "I;16 PNG": reopened(Image.fromarray(deep), "PNG"),
        "I;16 TIFF": reopened(Image.fromarray(deep), "TIFF"),
        "I;16B": Image.frombytes("I;16B", (16, 1), deep.astype(">u2").tobytes()),
        "I in 16 bits": Image.fromarray(deep.astype(np.int32)),
        "I in 8 bits": Image.fromarray(ramp.astype(np.int32)),
        "I in 32 bits": Image.fromarray(deep.astype(np.int32) * 1000),
        "F in [0, 1]": Image.fromarray(ramp.astype(np.float32) / 255),
        "F": Image.fromarray(ramp.astype(np.float32) * 17 - 1000),
        "TIFF of 12 bits": tiff(12, 1, pack12(np.round(ramp[0] * (4095 / 255)).astype(int)), 16),
        "TIFF of 16 bits, white is 0": tiff(16, 0, (65535 - deep).astype("<u2").tobytes(), 16),
        "TIFF of floats": tiff(32, 1, (ramp / 255).astype("<f4").tobytes(), 16, sample_format=3),
    }
    for name, image in formats.items():
        assert abs(np.asarray(to_rgb(image)).astype(int) - expected).max() <= (name == "TIFF of 12 bits"), name


def pack12(values) -> bytes:
    """Twelve-bit samples, two in three bytes."""
    bits = "".join(f"{value:012b}" for value in values)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def test_dark_deep_grey_stays_dark():
    """16-bit files have a scale: a nearly black one is not brightened as floats of no known scale are."""
    assert colour(Image.fromarray(np.full((2, 2), 256, np.uint16))) == (1, 1, 1)
    assert colour(Image.fromarray(np.array([[0.0, 0.5]], np.float32)), 1) == (128, 128, 128)
    assert colour(Image.fromarray(np.full((1, 2), 0.5, np.float32))) == (128, 128, 128), "constant"
    assert colour(Image.fromarray(np.array([[-1000.0, 0.0, 3000.0]], np.float32)), 1) == (64, 64, 64)


def test_float_without_numbers():
    values = np.array([[np.nan, 0.25, np.inf, -np.inf]], np.float32)
    assert [colour(Image.fromarray(values), x)[0] for x in (0, 1)] == [64, 64]
    values = np.array([[np.nan, 0.0, 10.0, np.inf]], np.float32)
    assert [colour(Image.fromarray(values), x)[0] for x in range(4)] == [0, 0, 255, 255]
    assert colour(Image.fromarray(np.full((1, 1), np.nan, np.float32))) == (0, 0, 0)


def test_deep_colour_png():
    assert colour(png(16, 2, struct.pack(">3H", 65535, 32768, 0x1234))) == (255, 128, 0x12)
    assert near(colour(png(16, 6, struct.pack(">4H", 65535, 0, 0, 32768))), (255, 127, 127))
    assert near(colour(png(16, 4, struct.pack(">2H", 0, 32768))), (127, 127, 127))
    assert colour(png(16, 6, struct.pack(">4H", 65535, 0, 0, 0))) == WHITE


def test_lab():
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    for rgb in (RED, (40, 60, 200), (90, 140, 60), WHITE):
        lab = ImageCms.applyTransform(Image.new("RGB", (4, 4), rgb), to_lab)
        assert near(colour(lab), rgb, 10), "8-bit Lab is coarse"
        assert near(colour(reopened(lab, "TIFF")), rgb, 10), "8-bit Lab is coarse"


# ---- orientation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("orientation", "corner"), zip(range(1, 9), ("00", "10", "11", "01", "00", "10", "11", "01")))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_orientation_brings_the_first_pixel_home(kind: str, orientation: int, corner: str):
    """The stored top left block ends at the corner that the EXIF standard gives for each value."""
    image = Image.new("RGB", (48, 32), "white")
    image.paste("black", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = to_rgb(reopened(image, kind, exif=exif))
    assert shown.size == ((48, 32) if orientation < 5 else (32, 48))
    right, low = (int(digit) for digit in corner)
    x, y = (shown.width - 8) * right + 4 * (1 - right), (shown.height - 8) * low + 4 * (1 - low)
    dark = np.asarray(shown).mean(-1) < 128
    assert dark[y, x] and dark.sum() in range(236, 277), "the block stands there and nowhere else"
    assert to_rgb(shown).tobytes() == shown.tobytes(), "turned once, not again"


# ---- CMYK and profiles ----------------------------------------------------------------------------------------------


def test_adobe_jpeg_is_not_negative():
    """Adobe stores CMYK JPEGs inverted and marks them; the picture must come out positive."""
    for inks, expected in (((0, 0, 0, 0), WHITE), ((0, 255, 255, 0), RED), ((0, 0, 0, 255), (0, 0, 0))):
        image = reopened(Image.new("CMYK", (16, 16), inks), "JPEG", quality=95)
        assert image.mode == "CMYK" and "adobe" in image.info
        assert near(colour(image), expected, 3)


def test_cmyk_profile_is_used():
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for kind in ("JPEG", "TIFF"):
        assert near(colour(reopened(image, kind)), (0, 255, 255), 3), "control: without a profile cyan is cyan"
        shown = colour(reopened(image, kind, icc_profile=red_cyan()))
        assert shown[0] > 230 and max(shown[1:]) < 40, shown
    assert near(colour(reopened(Image.new("CMYK", (16, 16)), "TIFF", icc_profile=red_cyan())), WHITE, 2)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_rgb_profile_is_used_once(kind: str):
    image = reopened(Image.new("RGB", (16, 16), RED), kind, icc_profile=swapped_rgb())
    shown = to_rgb(image)
    assert near(shown.getpixel((0, 0)), (0, 255, 0), 6), "its first channel is green light"
    assert to_rgb(shown).tobytes() == shown.tobytes()


def test_profiles_of_grey_palette_and_alpha():
    grey = reopened(Image.new("L", (2, 2), 128), "PNG", icc_profile=steep_grey())
    assert near(colour(grey), (188, 188, 188), 2), "linear 0.5 is 188 in sRGB"
    palette = Image.new("P", (1, 1))
    palette.putpalette([255, 0, 0])
    assert near(colour(reopened(palette, "PNG", icc_profile=swapped_rgb())), (0, 255, 0), 6)
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 255))
    clear = reopened(clear, "PNG", icc_profile=swapped_rgb())
    assert near(colour(clear), WHITE) and near(colour(clear, 1), (0, 255, 0), 6)


@pytest.mark.parametrize("profile", [b"no profile at all", swapped_rgb()[:200], red_cyan()[:-900], steep_grey()])
@pytest.mark.parametrize(("mode", "value", "expected"), [("CMYK", (0, 255, 255, 0), RED), ("RGB", RED, RED)])
def test_a_wrong_profile_costs_nothing(profile: bytes, mode: str, value, expected):
    assert near(colour(reopened(Image.new(mode, (4, 4), value), "TIFF", icc_profile=profile)), expected)


def test_srgb_profiles_change_no_byte():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert to_rgb(reopened(picture(), "PNG", icc_profile=profile)).tobytes() == picture().tobytes()


def test_plain_rgb_is_not_copied():
    image = picture()
    assert to_rgb(image) is image
