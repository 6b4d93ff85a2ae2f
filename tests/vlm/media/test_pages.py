"""Documents that are no PDF, the words in which pages are asked for, animations, and pictures that are bombs."""

import io
import logging
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.processing import picture
from tests.helpers.shared import shared_path
from vlm.errors import SampleError
from vlm.media import load_image, open_document
from vlm.media.image import _note_pages
from vlm.media.pages import parse_pages

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def frames(size: tuple[int, int] = (40, 30)) -> list[Image.Image]:
    return [Image.new("RGB", size, colour) for colour in COLOURS]


def save_frames(path: Path, **options) -> Path:
    first, *rest = frames()
    first.save(path, save_all=True, append_images=rest, **options)
    return path


# ---- which pages ----------------------------------------------------------------------------------------------------

GOOD = [
    (None, [1, 2, 3, 4, 5]), ("1-3,5", [1, 2, 3, 5]), ("2-", [2, 3, 4, 5]), ("-2", [1, 2]), (" 4 , 1 - 2 ", [4, 1, 2]),
    ("3", [3]), (3, [3]), ([5, 1], [5, 1]), ((2, 2), [2, 2]), ("5-", [5]), ("1-1", [1]),
]  # fmt: skip
BAD = [
    ("6", "page 6 is not in a document of 5 pages"), ("4-6", "page 6"), ("0", "page 0"), ([0], "page 0"),
    (-1, "page -1"), ("7-", "page 7 is not"), ("3-2", "write 2-3"), ("", "form"), ("-", "form"), ("a", "form"),
    ("1,,2", "form"), ("1-2-3", "form"), ("1.5", "form"), ([], "no page"), ([1.5], "numbers"), (["1"], "numbers"),
    (True, "no page numbers"), ({"a": 1}, "no page numbers"), ("1-99999999999", "page 99999999999"), ("½", "form"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "numbers"), GOOD)
def test_page_words(asked, numbers):
    assert parse_pages(asked, 5) == numbers


@pytest.mark.parametrize(("asked", "message"), BAD)
def test_bad_page_words(asked, message):
    with pytest.raises(SampleError, match=message) as caught:
        parse_pages(asked, 5, "file.pdf")
    assert caught.value.reason == "bad_pages" and caught.value.path == "file.pdf"


def test_a_document_of_one_page_says_so():
    with pytest.raises(SampleError, match="page 2 is not in a document of 1 page;"):
        parse_pages("2-", 1)


# ---- TIFF -----------------------------------------------------------------------------------------------------------


def test_tiff_pages(tmp_path: Path):
    path = save_frames(tmp_path / "fax.tif", compression="tiff_deflate")
    refs = open_document(path, "3,1-2")
    assert [ref.number for ref in refs] == [3, 1, 2]
    assert [ref.open().getpixel((5, 5)) for ref in refs] == [COLOURS[2], COLOURS[0], COLOURS[1]]
    assert [ref.size() for ref in refs] == [(30, 40)] * 3 and pickle.loads(pickle.dumps(refs)) == refs
    in_memory = open_document(path.read_bytes())
    assert [ref.open().getpixel((5, 5)) for ref in in_memory] == COLOURS


def test_smaller_copies_in_a_tiff_are_no_pages(tmp_path: Path):
    """Scanners store a thumbnail beside each page, marked as one."""
    pages = frames()
    for number, image in enumerate(pages):
        image.encoderinfo = {"tiffinfo": {254: number % 2}}
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    refs = open_document(tmp_path / "x.tif")
    assert [(ref.number, ref.open().getpixel((0, 0))) for ref in refs] == [(1, COLOURS[0]), (2, COLOURS[2])]


def test_orientation_of_each_tiff_page(tmp_path: Path):
    pages = frames()
    pages[1].encoderinfo = {"tiffinfo": {0x0112: 6}}
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    refs = open_document(tmp_path / "x.tif")
    sizes = [ref.open().size for ref in refs]
    assert sizes == [(40, 30), (30, 40), (40, 30)] and [ref.size()[::-1] for ref in refs] == sizes


def test_a_tiff_as_an_image_is_its_first_page_said_once(tmp_path: Path, caplog):
    caplog.set_level(logging.INFO)
    _note_pages.cache_clear()
    path = save_frames(tmp_path / "fax.tif")
    for _ in range(2):
        assert load_image(path).getpixel((5, 5)) == COLOURS[0]
    notes = [record.getMessage() for record in caplog.records if "pages" in record.getMessage()]
    assert len(notes) == 1 and str(path) in notes[0] and "3 pages" in notes[0] and "document" in notes[0]
    load_image(save_frames(tmp_path / "other.tif"))
    assert sum("other.tif" in record.getMessage() for record in caplog.records) == 1
    picture().save(tmp_path / "one.tif")
    load_image(tmp_path / "one.tif")
    assert "one.tif" not in caplog.text


def test_a_broken_later_page(tmp_path: Path):
    """The first page of a file cut short is still a picture; as a document it is refused, or its page is."""
    path = save_frames(tmp_path / "x.tif")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    assert load_image(path).getpixel((5, 5)) == COLOURS[0]
    with pytest.raises(SampleError) as caught:
        [ref.open() for ref in open_document(path)]
    assert caught.value.path == str(path) and caught.value.reason in ("unreadable_image", "truncated_image")


# ---- one picture, and animations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_a_picture_is_a_document_of_one_page(tmp_path: Path, kind: str):
    path = tmp_path / f"x.{kind}"
    picture(30, 40).save(path)
    (ref,) = open_document(path)
    assert ref.number == 1 and ref.size() == (30, 40)
    assert ref.open().tobytes() == load_image(path).tobytes()
    with pytest.raises(SampleError, match="page 2 is not in a document of 1 page"):
        open_document(path, "2")


def test_the_second_picture_of_a_phone_is_no_page(tmp_path: Path):
    path = save_frames(tmp_path / "x.jpg", format="MPO")
    assert Image.open(path).n_frames == 3
    assert len(open_document(path)) == 1 and load_image(path).size == (40, 30)


def test_dicom_is_a_document_of_one_page():
    pytest.importorskip("pydicom", reason="optional package absent")
    from pydicom.data import get_testdata_file

    path = get_testdata_file("CT_small.dcm")
    (ref,) = open_document(path)
    assert ref.open().tobytes() == load_image(path).tobytes() and ref.size() == (128, 128)


@pytest.mark.parametrize(("kind", "options"), [("gif", {}), ("webp", {"lossless": True}), ("png", {})])
def test_animations(tmp_path: Path, kind: str, options: dict):
    """As an image the first frame; as a document refused: frames are moments, not pages."""
    path = save_frames(tmp_path / f"x.{kind}", duration=100, **options)
    assert Image.open(path).n_frames == 3
    assert load_image(path).getpixel((5, 5)) == COLOURS[0]
    with pytest.raises(SampleError, match="3 frames.*video") as caught:
        open_document(path)
    assert caught.value.reason == "animation" and caught.value.path == str(path)


# ---- bad input ------------------------------------------------------------------------------------------------------


def png_bomb(side: int) -> bytes:
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0" * 99))
    blocks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(blocks)


def tiff_bomb(side: int) -> bytes:
    """A second page that claims side x side pixels behind an honest first one."""
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "TIFF")
    data = bytearray(file.getvalue() + bytes(len(file.getvalue()) % 2))
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    struct.pack_into("<I", data, first + 2 + 12 * count, len(data))
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, side), (279, 4, 16)]
    data += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags) + bytes(4)
    return bytes(data)


@pytest.mark.parametrize("side", [15_000, 30_000, 2_000_000])
def test_bombs_are_refused_before_they_go_off(tmp_path: Path, side: int):
    """15,000 squared is above the bound, 30,000 squared above what Pillow itself opens."""
    png = tmp_path / "bomb.png"
    png.write_bytes(png_bomb(side))
    tiff = tmp_path / "bomb.tif"
    tiff.write_bytes(tiff_bomb(side))
    assert load_image(tiff).size == (4, 4), "its first page is honest"
    doors = (lambda: load_image(png), lambda: open_document(png)[0].open(), lambda: open_document(tiff)[1].open())
    for door in doors:
        with pytest.raises(SampleError) as caught:
            door()
        assert caught.value.reason == "too_large" and "bomb" in str(caught.value.path)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"", "empty_file"),
        (b"no document", "unreadable_image"),
        ("https://example.org/a.pdf", "remote_media"),
        ("data:application/pdf;base64,JVBERi0=", "remote_media"),
        ("nowhere.pdf", "missing_file"),
        (None, "no_media"),
        (7, "no_media"),
    ],
)
def test_bad_sources(source, reason: str):
    with pytest.raises(SampleError) as caught:
        open_document(source)
    assert caught.value.reason == reason


def test_thinner_than_a_patch():
    """1 x 2000 pixels: the grid gets at least one row, and there is a placeholder for each feature."""
    from tests.helpers.tiny_processor import tiny_processor

    processor = tiny_processor()
    for size in ((1, 2000), (2000, 1), (1, 1)):
        image = Image.new("RGB", size, "red")
        content = [{"type": "image", "image": image}, {"type": "text", "text": "?"}]
        encoded = processor.encode([{"role": "user", "content": content}], add_generation_prompt=True)
        (grid,) = encoded["image_grid_hw"].tolist()
        assert min(grid) >= 2 and len(encoded["pixel_values"]) == grid[0] * grid[1] <= 64
        tokens = (encoded["input_ids"] == processor.image_token_id).sum()
        assert tokens == processor.num_image_tokens(size[1], size[0]) == grid[0] * grid[1] // 4
        colours = encoded["pixel_values"].view(-1, 3, 256).mean(dim=(0, 2))
        assert np.allclose(colours, [1, 0, 0], atol=1e-3), "stretched, not padded with another colour"


def test_every_real_picture_is_a_document_of_one_page():
    base = shared_path("data")
    suffixes = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
    paths = [path for path in sorted(base.rglob("*")) if path.suffix.lower() in suffixes]
    assert len(paths) > 60
    for path in paths:
        (ref,) = open_document(path)
        height, width = ref.size()
        with Image.open(path) as raw:
            assert sorted(raw.size) == sorted((width, height)), path
    refs = [open_document(path)[0] for path in sorted((base / "dicom").glob("*.dcm"))]
    assert len(refs) > 20 and all(ref.kind == "image" for ref in refs)
