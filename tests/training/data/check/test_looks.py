"""Fingerprints of pictures and the search for near ones: copies are found, other receipts are not, fast equals slow."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.helpers.shared import shared_path
from tests.training.data.check.receipts import receipt
from training.data.check.fingerprint import BITS, DISTANCE, fingerprint
from training.data.check.media import MediaCheck
from training.data.check.near import near_pairs, near_pairs_slow

SEEDS = range(40)


def bits_between(a: bytes, b: bytes) -> int:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count()


def saved(image: Image.Image, **options) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, **options)
    return Image.open(stream)


COPIES = {
    "jpeg": lambda image: saved(image, format="JPEG", quality=40),
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "stretched": lambda image: image.resize((image.width, int(image.height * 0.9))),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "grey": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_keep_their_fingerprint(how):
    apart = [bits_between(fingerprint(receipt(seed)), fingerprint(COPIES[how](receipt(seed)))) for seed in range(12)]
    assert max(apart) <= DISTANCE


def test_other_receipts_are_far():
    prints = [fingerprint(receipt(seed)) for seed in SEEDS]
    apart = [bits_between(a, b) for i, a in enumerate(prints) for b in prints[:i]]
    assert min(apart) > 2 * DISTANCE


def test_blank_pages_have_none():
    assert fingerprint(Image.new("RGB", (50, 80), "white")) is None
    assert len(fingerprint(receipt(0))) == BITS // 8


def test_a_jpeg_shrunk_by_its_decoder_has_the_same_fingerprint(tmp_path):
    """The check decodes JPEG files at a fraction of their size; training data may be saved in another format."""
    for seed in range(3):
        image = receipt(seed, (1000, 1400))
        image.save(tmp_path / "a.jpg")
        image.save(tmp_path / "a.png")
        found = []
        for name, level in (("a.jpg", "headers"), ("a.jpg", "full"), ("a.png", "headers")):
            (picture,) = MediaCheck(level, True)({"type": "image"} | {"image": name}, str(tmp_path / name))
            assert (picture.width, picture.height) == (1000, 1400)
            found.append(picture.fingerprint)
        assert max(bits_between(found[0], other) for other in found[1:]) <= DISTANCE


def test_scanned_receipts_saved_again_are_found_from_shrunk_files(tmp_path):
    """At two thirds of their size and quality 60; decoding at a smaller fraction loses them."""
    media, item = MediaCheck("headers", True), {"type": "image", "image": "a.jpg"}
    apart = []
    for path in sorted(shared_path("data/sroie_receipts/images").glob("*.jpg")):
        image = Image.open(path)
        small = image.resize((image.width * 2 // 3, image.height * 2 // 3))
        small.save(tmp_path / path.name, quality=60)
        prints = [media(item, str(file))[0].fingerprint for file in (path, tmp_path / path.name)]
        apart.append(bits_between(*prints))
    assert len(apart) > 30 and max(apart) <= DISTANCE


def random_prints(generator, count: int) -> np.ndarray:
    """(count, 32): random ones, with neighbours at every distance from 0 to 40 bits."""
    rows = generator.integers(0, 256, (count, BITS // 8), dtype=np.uint8)
    for row in range(1, count, 2):
        bits = np.unpackbits(rows[row - 1])
        bits[generator.choice(BITS, row % 41, replace=False)] ^= 1
        rows[row] = np.packbits(bits)
    return rows


@pytest.mark.parametrize("distance", [0, 1, 5, DISTANCE, 40, 63])
def test_near_pairs_agree_with_their_slow_twin(distance):
    generator = np.random.default_rng(distance)
    a = random_prints(generator, 50)
    b = np.concatenate([a[::3], random_prints(generator, 20)])
    expected = near_pairs_slow(a, b, distance)
    assert len(expected) >= 17
    np.testing.assert_array_equal(near_pairs(a, b, distance), expected)


def test_near_pairs_of_nothing_and_a_wrong_distance():
    none = np.empty((0, BITS // 8), np.uint8)
    assert near_pairs(none, none, 12).shape == (0, 3)
    for distance in (-1, 64):
        with pytest.raises(ValueError, match="distance"):
            near_pairs(none, none, distance)


def test_many_equal_fingerprints_are_compared_in_pieces(monkeypatch):
    from training.data.check import near

    monkeypatch.setattr(near, "CHUNK", 50)
    same = np.repeat(random_prints(np.random.default_rng(0), 2), 15, axis=0)
    np.testing.assert_array_equal(near_pairs(same, same, 3), near_pairs_slow(same, same, 3))
