"""Still images from anywhere: good ones open upright in RGB, bad ones are refused by name and reason."""

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.processing import picture
from tests.helpers.shared import shared_path
from vlm.errors import SampleError
from vlm.media import load_image


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp", "gif"])
def test_formats_open(tmp_path: Path, suffix: str):
    path = tmp_path / f"x.{suffix}"
    picture(20, 30).save(path)
    image = load_image(path)
    assert image.mode == "RGB" and image.size == (30, 20)


def test_sources_agree(tmp_path: Path):
    path = tmp_path / "x.png"
    picture().save(path)
    data = path.read_bytes()
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    for source in (path, str(path), data, io.BytesIO(data), uri, {"bytes": data, "path": None}, picture()):
        assert load_image(source).tobytes() == picture().tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int):
    image = picture(24, 40)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "x.png", exif=exif)
    assert load_image(tmp_path / "x.png").size == ((40, 24) if orientation < 5 else (24, 40))


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    good = folder / "good.jpg"
    picture(200, 200).save(good)
    whole = good.read_bytes()
    png = folder / "good.png"
    picture(200, 200).save(png)
    contents = {
        "empty.png": (b"", "empty_file"),
        "text.jpg": (b"this is no image at all" * 20, "unreadable_image"),
        "cut.jpg": (whole[: len(whole) // 2], "truncated_image"),
        "head_only.jpg": (whole[:20], "unreadable_image"),
        "cut.png": (png.read_bytes()[:2000], "truncated_image"),
        "noise.png": (b"\x89PNG\r\n\x1a\n" + bytes(range(200)), "unreadable_image"),
    }
    for name, (data, _) in contents.items():
        (folder / name).write_bytes(data)
    return {name: (folder / name, reason) for name, (_, reason) in contents.items()}


@pytest.mark.parametrize("name", ["empty.png", "text.jpg", "cut.jpg", "head_only.jpg", "cut.png", "noise.png"])
def test_bad_files_are_named(tmp_path: Path, name: str):
    path, reason = bad_files(tmp_path)[name]
    with pytest.raises(SampleError) as caught:
        load_image(path)
    assert caught.value.path == str(path) and str(path) in str(caught.value) and caught.value.reason == reason


def test_missing_and_folder(tmp_path: Path):
    for path in (tmp_path / "absent.png", tmp_path):
        with pytest.raises(SampleError) as caught:
            load_image(path)
        assert caught.value.reason == "missing_file" and str(path) in str(caught.value)


def test_size_is_bounded_before_decoding(tmp_path: Path):
    path = tmp_path / "wide.png"
    Image.new("1", (3000, 3000)).save(path)
    assert load_image(path).size == (3000, 3000)
    with pytest.raises(SampleError, match="3000 x 3000") as caught:
        load_image(path, max_pixels=1_000_000)
    assert caught.value.reason == "too_large"
    bomb = tmp_path / "bomb.png"
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0" * 99))
    blocks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(blocks))
    with pytest.raises(SampleError) as caught:
        load_image(bomb)
    assert caught.value.reason == "too_large" and str(bomb) in str(caught.value)


def test_every_real_image_opens():
    base = shared_path("data")
    paths = [p for s in ("png", "jpg", "jpeg") for p in sorted(base.rglob(f"*.{s}"))]
    assert len(paths) > 60
    for path in paths:
        image = load_image(path)
        assert image.mode == "RGB" and np.asarray(image).ndim == 3
