"""Masks over slices: pixels, colours, legends, and what the model gets of them."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers.odd_experts import SIZE, Odd, ask, asked, write_image
from vlm.experts import Expert, ExpertCard, ExpertError, ExpertResult, ExpertSession
from vlm.experts.overlay import STRENGTH, as_mask, draw_overlay, label_names, legend
from vlm.experts.session import image_file, text_of


def test_pixels_are_those_of_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (12, 17), dtype=np.uint8)
    mask = np.zeros((12, 17), int)
    mask[3:9, 2:8], mask[0:4, 12:17] = 1, 5
    names = {1: "liver", "5": "spleen"}
    drawn = np.asarray(draw_overlay(Image.fromarray(grey), mask, names))
    for row in range(12):
        for column in range(17):
            label, shown = mask[row, column], np.repeat(grey[row, column], 3).astype(float)
            around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
            inner = all(0 <= r < 12 and 0 <= c < 17 and mask[r, c] == label for r, c in around)
            colour = np.array({0: (0, 0, 0), 1: (255, 0, 0), 5: (0, 0, 255)}[label])
            if label:
                shown = shown * (1 - STRENGTH) + colour * STRENGTH if inner else colour
            assert np.abs(drawn[row, column] - shown).max() <= 0.6, (row, column)


def test_a_label_has_its_colour_whatever_else_is_there():
    image = Image.new("RGB", (8, 8))
    alone, both = np.zeros((8, 8), int), np.zeros((8, 8), int)
    alone[1:3, 1:3] = both[1:3, 1:3] = 7
    both[5:7, 5:7] = 2
    names = {7: "liver", 2: "spleen"}
    one, two = (np.asarray(draw_overlay(image, mask, names))[1, 1].tolist() for mask in (alone, both))
    assert one == two == [255, 0, 0]
    assert legend(label_names(both, names)) == "blue: spleen, red: liver"


def test_legends_name_what_has_no_name_and_share_what_is_shared():
    assert legend({1: "lung", 2: "left lung", 3: "body"}) == "cyan: lung and left lung, silver: body"
    assert legend(label_names(np.array([[0, 1], [2, 2]]))) == "red: region 1, deepskyblue: region 2"


@pytest.mark.parametrize("mask", ["words", [[0.5]], [[float("nan")]], [[-1]], [[1j]], np.ones((1, 1, 1, 1)), [], None])
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(ExpertError, match="the expert's mask"):
        as_mask(mask)


def test_masks_of_other_types_are_taken_as_they_are_meant():
    for kind in (bool, np.float32, np.int16):
        assert as_mask(np.array([[0, 1]], kind)).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("feedback", "text", "drawn"),
    [
        ("text", "two regions", False),
        ("overlay", "overlay: red: liver, lime: hepatic tumor", True),
        ("both", "two regions\noverlay: red: liver, lime: hepatic tumor", True),
    ],
)
def test_the_model_gets_what_the_session_says(tmp_path, feedback, text, drawn):
    image = write_image(tmp_path / "a.dcm")
    session = ExpertSession(["ODD"], instances={"ODD": Odd()}, feedback=feedback, max_calls=3)
    transcript = ask(session, asked(image), "<ODD(mask)>", "<ODD(zero)>", "<ODD(fine)>")
    turns = transcript.messages[2::2]
    assert text_of(turns[0]) == f"{text}\nSide?"
    assert [item["type"] for item in turns[0]["content"]] == ["image", "text"][1 - drawn :]
    nothing = {"text": "0 lesions", "overlay": "no region is marked", "both": "0 lesions\nno region is marked"}
    assert text_of(turns[1]) == f"{nothing[feedback]}\nSide?"
    assert text_of(turns[2]) == "all fine\nSide?", "a result without mask is text in every case"
    if drawn:
        overlay = turns[0]["content"][0]["image"]
        assert overlay.size == (SIZE, SIZE) and overlay.getpixel((4, 4)) == (255, 0, 0)
        assert image_file(transcript.messages) == image, "the next question is about the image, not the overlay"
    session.close()


def test_a_wrong_file_is_drawn_over_the_image_that_was_asked_about(tmp_path):
    dark, bright = (write_image(tmp_path / f"{v}.dcm", PixelData=bytes([v]) * SIZE**2, WindowCenter=128,
                                WindowWidth=256) for v in (10, 240))  # fmt: skip
    session = ExpertSession(["ODD"], instances={"ODD": Odd()}, feedback="overlay")
    events = list(session.stream(Script(), asked(dark), expert_override=bright))
    overlay = events[-1].transcript.calls[0].overlay
    assert max(overlay.getpixel((0, 0))) < 20
    session.close()


class Script:
    """A model that calls once and is done."""

    def __init__(self):
        self.replies = iter(["<ODD(mask)>", "done"])

    def __call__(self, messages):
        return [next(self.replies)]


class Volume(Expert):
    """Marks the second of three frames."""

    card = ExpertCard("VOL", "CT", "any", "a volume")

    def run(self, path, arguments):
        mask = np.zeros((3, SIZE, SIZE), int)
        mask[1, 2:5, 2:5] = 1
        return ExpertResult("one region", mask, {"labels": {1: "liver"}})


def test_of_a_volume_the_fullest_slice_is_shown(tmp_path):
    frames = b"".join(bytes([value]) * SIZE**2 for value in (0, 100, 200))
    image = write_image(tmp_path / "a.dcm", NumberOfFrames=3, PixelData=frames, WindowCenter=128, WindowWidth=256)
    session = ExpertSession(["VOL"], instances={"VOL": Volume()}, feedback="both")
    call = ask(session, asked(image), "<VOL()>").calls[0]
    assert call.text == "one region\noverlay: red: liver"
    assert abs(call.overlay.getpixel((0, 0))[0] - 100) < 3 and call.overlay.getpixel((2, 2)) == (255, 0, 0)
    session.close()


def test_a_volume_without_a_picture_keeps_its_text(tmp_path):
    """Slices in a folder are no single picture; a mask of other frames belongs to no frame."""
    folder = tmp_path / "series"
    folder.mkdir()
    for number in range(3):
        write_image(folder / f"{number}.dcm")
    session = ExpertSession(["VOL"], instances={"VOL": Volume()}, feedback="overlay")
    call = ask(session, asked(folder), "<VOL()>").calls[0]
    assert call.ok and call.text.startswith("one region\nno overlay: ") and call.overlay is None
    assert str(tmp_path) not in call.text
    session.close()


def test_a_series_is_drawn_as_radiologists_look_at_it(tmp_path):
    """Front (bright rows) at the top, the patient's right (dark columns) on the left, however columns are stored."""
    pixels = np.full((SIZE, SIZE), 100, np.uint8)
    pixels[:4], pixels[:, :2] = 200, 50
    for turned in (False, True):
        folder = tmp_path / f"series {turned}"
        folder.mkdir()
        stored = pixels[:, ::-1] if turned else pixels
        geometry = {"ImageOrientationPatient": [-1 if turned else 1, 0, 0, 0, 1, 0], "SeriesInstanceUID": "1.2.3"}
        for number in range(3):
            place = [31 if turned else 0, 0, 2 * number]
            write_image(folder / f"{number}.dcm", PixelData=stored.tobytes(), ImagePositionPatient=place, **geometry)
        session = ExpertSession(["VOL"], instances={"VOL": Volume()}, feedback="both")
        overlay = ask(session, asked(folder), "<VOL()>").calls[0].overlay
        assert overlay.getpixel((10, 0)) == (223,) * 3 and overlay.getpixel((0, 10)) == (128,) * 3
        assert overlay.getpixel((20, 20)) == (159,) * 3
        assert overlay.getpixel((29 if turned else 2, 2)) == (255, 0, 0), "the mask is turned as the slice is"
        session.close()
