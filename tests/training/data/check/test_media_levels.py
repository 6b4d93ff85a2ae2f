"""How far media are read: ends of files at level "headers", every pixel at level "full"; languages of texts."""

import io
import random
import struct

import pytest
from PIL import Image

from tests.helpers.data_folders import record, write_records
from tests.training.data.check.receipts import noise
from training.data.check import check
from training.data.check.language import guess_language
from training.data.check.media import MediaCheck
from training.data.check.trailers import has_end
from vlm.errors import SampleError

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tiff": "TIFF", "gif": "GIF", "bmp": "BMP"}


def encoded(suffix: str) -> bytes:
    stream = io.BytesIO()
    noise(0).save(stream, FORMATS[suffix])
    return stream.getvalue()


def told(data: bytes, whole: bytes | None = None):
    return has_end(io.BytesIO(data), Image.open(io.BytesIO(whole or data)))


def checked(level: str, path):
    return MediaCheck(level)({"type": "image", "image": path.name}, str(path))


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_truncated_file_is_found_from_its_header(tmp_path, suffix):
    data = encoded(suffix)
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(data)
    assert told(data) is True and checked("headers", path)[0].width == 160
    for share in (0.3, 0.5, 0.9, 0.99):
        cut = data[: int(share * len(data))]
        assert told(cut, data) is False
        path.write_bytes(cut)
        with pytest.raises(SampleError, match="decode|cannot open") as error:
            checked("headers", path)
        assert error.value.reason in ("truncated_image", "unreadable_image") and error.value.path == str(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp"])
def test_what_stands_behind_the_end_does_no_harm(tmp_path, suffix):
    """Zeros of a block device, and notes of a camera: the picture is whole."""
    path = tmp_path / f"a.{suffix}"
    for more in (b"\0" * 500, b"a note of the camera"):
        path.write_bytes(encoded(suffix) + more)
        assert checked("headers", path)[0].height == 120


def test_formats_that_do_not_say_are_decoded(tmp_path):
    noise(0).save(tmp_path / "a.ppm")
    assert told((tmp_path / "a.ppm").read_bytes()) is None and checked("headers", tmp_path / "a.ppm")[0].width == 160
    sizeless = bytearray(encoded("bmp"))
    sizeless[2:6] = struct.pack("<I", 0)
    assert told(bytes(sizeless)) is None
    (tmp_path / "a.bmp").write_bytes(sizeless[: len(sizeless) // 2])
    with pytest.raises(SampleError):
        checked("headers", tmp_path / "a.bmp")


def test_headers_decode_nothing(tmp_path, monkeypatch):
    for suffix in FORMATS:
        (tmp_path / f"a.{suffix}").write_bytes(encoded(suffix))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail(f"{self.format} was decoded"))
    for suffix in FORMATS:
        assert checked("headers", tmp_path / f"a.{suffix}")[0].width == 160


def test_damage_in_the_middle_passes_as_header_and_is_found_in_full(tmp_path):
    folder = tmp_path / "d"
    (folder / "images").mkdir(parents=True)
    data = bytearray(encoded("png"))
    data[len(data) // 2 : len(data) // 2 + 40] = b"x" * 40
    (folder / "images/bad.png").write_bytes(data)
    (folder / "images/good.png").write_bytes(encoded("png"))
    write_records(folder, [record(name, images=(f"images/{name}.png",)) for name in ("good", "bad")])
    assert check([folder], workers=0).ok
    (problem,) = check([folder], workers=0, level="full").problems
    assert problem.id == "bad" and problem.reason in ("unreadable_image", "truncated_image")
    assert problem.file == str(folder / "images/bad.png")


def test_a_medium_is_opened_once(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded("png"))
    media = MediaCheck("headers")
    item = {"type": "image", "image": "a.png"}
    first = media(item, str(tmp_path / "a.png"))
    monkeypatch.setattr(media, "_open", lambda *_: pytest.fail("opened again"))
    assert media(item, str(tmp_path / "a.png")) == first
    with pytest.raises(ValueError, match="level"):
        MediaCheck("some")


LANGUAGES = {
    "English": "What is the total of this receipt and which shop is it from?",
    "German": "Was ist die Summe auf dem Beleg und welche Firma wird genannt?",
    "French": "Quel est le total de la facture et dans quelle ville est le magasin ?",
    "Spanish": "¿Cuál es el total de los artículos y qué tienda se muestra en la imagen?",
    "Italian": "Qual è il totale della fattura e come si chiama il negozio di questa città?",
    "Dutch": "Wat is het totaal van deze bon en welke winkel is het niet?",
    "Chinese": "这张收据的总额是多少？",
    "Japanese": "この領収書の合計はいくらですか。",
    "Korean": "이 영수증의 합계는 얼마입니까?",
    "Russian or other Cyrillic": "Какова общая сумма на этом чеке?",
    "Ukrainian": "Яка загальна сума на цьому чеку і їх кількість?",
    "Arabic": "ما هو المبلغ الإجمالي في هذا الإيصال؟",
    "Hindi or other Devanagari": "इस रसीद पर कुल राशि क्या है?",
    "Thai": "ยอดรวมในใบเสร็จนี้คือเท่าไร",
    "Greek": "Ποιο είναι το σύνολο της απόδειξης;",
    "no letters": "12.50 + 7 = 19.50 €",
    "Latin script, too few words to tell": "TOTAL 12.50",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages(language):
    assert guess_language(LANGUAGES[language]) == language


def test_a_list_of_names_has_no_language():
    """A scanned price list holds an `a` or a `do` here and there, which makes it neither Hungarian nor Portuguese."""
    chance = random.Random(0)
    words = [*("".join(chance.choice("bcdfgklmnprtz") for _ in range(6)) for _ in range(100)), "A", "A", "EM", "DO"]
    assert guess_language(" ".join(words)) == "Latin script, too few words to tell"
