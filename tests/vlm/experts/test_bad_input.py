"""What goes wrong in a conversation with experts: each is a clear message for the model, a line in the log, and the
conversation goes on."""

import json
import random

import pytest

from tests.helpers.odd_experts import Odd, ask, asked, write_image, write_picture
from vlm.experts import Expert, ExpertCard, ExpertError, ExpertResult, ExpertSession
from vlm.experts.session import text_of


class Other(Expert):
    """An expert for X-rays of both kinds."""

    card = ExpertCard("XRAY", "DX/CR", "chest", "findings")

    def run(self, path, arguments):
        return ExpertResult(f"read {path.name.partition('_')[0]}")


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path / "slice.dcm")


@pytest.fixture
def session(tmp_path):
    with ExpertSession(["ODD"], instances={"ODD": Odd()}, log=tmp_path / "log.jsonl") as session:
        yield session


def log_of(session):
    return [json.loads(line) for line in session.log.path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("<NOBODY()>", "error: unknown expert NOBODY; known: ODD"),
        ("<ODD(spleen)>", "error: unknown argument spleen; ODD takes fine, raise"),
        ("<ODD(fine)> <ODD(raise)>", "error: one trigger at a time"),
        ("<ODD(<ODD(fine)>)>", "error: one trigger at a time; triggers cannot be nested"),
        ("<ODD(fine(raise))>", "error: not a valid trigger; write <NAME(argument)>"),
        ("<odd(fine)>", "error: not a valid trigger; names are written in capitals"),
        ("`<ODD(fine)>`", "error: a quoted trigger is not run"),
        ("<ODD(raise)>", "error: ODD failed: RuntimeError"),
        ("<ODD(exit)>", "error: ODD failed: SystemExit"),
        ("<ODD(refuse)>", "error: no good: [removed] of [removed]"),
        ("<ODD(no text)>", "error: ODD returned no text"),
        ("<ODD(nan)>", "error: ODD returned a value that is no number"),
        ("<ODD(string)>", "error: ODD failed: TypeError"),
        ("<ODD(empty)>", "error: the expert's mask is no array of labels"),
        ("<ODD(ragged)>", "error: the expert's mask is no array"),
        ("<ODD(other size)>", "error: the expert's mask is 9 x 8, the image 32 x 32"),
        ("<ODD(volume)>", "error: the expert's mask has 3072 voxels, the image 1024"),
        ("<ODD(fractions)>", "error: the expert's mask holds values that are no labels"),
        ("<ODD(holes)>", "error: the expert's mask holds values that are no labels"),
        ("<ODD(negative)>", "error: the expert's mask holds negative labels"),
        ("<ODD(nothing)>", "error: ODD marked nothing"),
        ("<ODD(image 2)>", "error: ODD cannot read image 2; it reads image 1"),
        ("<ODD(image 1, image 2)>", "error: one image at a time"),
    ],
)
def test_an_error_is_told_and_logged(session, image, reply, expected):
    transcript = ask(session, asked(image), reply)
    assert text_of(transcript.messages[-2]).startswith(expected) and transcript.answer == "done"
    assert text_of(transcript.messages[-2]).endswith("\nSide?")
    row = log_of(session)[-1]
    assert (row["event"], row["ok"], row["text"]) == ("call", False, transcript.calls[0].text)
    assert len(transcript.calls) == 1 and not transcript.calls[0].ok
    assert "slice.dcm" not in row["text"] and "Zebrowski" not in row["text"]
    assert ask(session, asked(image), "<ODD(fine)>").calls[0].text == "all fine", "the next call is served"


def test_an_expert_that_hangs_is_told_and_logged(image, tmp_path):
    log = tmp_path / "hangs.jsonl"
    with ExpertSession(["ODD"], instances={"ODD": Odd()}, call_seconds=0.2, log=log) as session:
        transcript = ask(session, asked(image), "<ODD(spin)>")
        row = log_of(session)[-1]
    assert text_of(transcript.messages[-2]) == "error: ODD did not answer within 0.2 s\nSide?"
    assert (row["event"], row["ok"], row["text"]) == ("call", False, "error: ODD did not answer within 0.2 s")
    assert transcript.answer == "done"


class Measuring(Expert):
    """Reads the whole volume, as those for three dimensions do."""

    card = ExpertCard("MEASURE", "CT", "any", "voxels")

    def run(self, path, arguments):
        from vlm.experts.volumes import read_volume

        return ExpertResult(f"{len(read_volume(path).array)} slices")


@pytest.mark.parametrize(
    ("places", "changes", "expected"),
    [
        ([0, 5, 10], {}, "3 slices"),
        ([0, 5, 15, 20], {}, "error: slices are missing or stand twice in the series"),
        (
            [0, 5, 10],
            {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
            "error: the slices differ in orientation: give one series",
        ),
        ([0, 5, 10], {"SeriesInstanceUID": "9.9"}, "error: the slices differ in SeriesInstanceUID: give one series"),
    ],
)
def test_a_series_that_is_none_is_told_and_logged(tmp_path, places, changes, expected):
    from tests.helpers.ct_series import write_series

    write_series(tmp_path / "s", places, **changes)
    content = [{"type": "volume", "volume": str(tmp_path / "s")}, {"type": "text", "text": "Side?"}]
    with ExpertSession(["MEASURE"], instances={"MEASURE": Measuring()}, log=tmp_path / "log.jsonl") as session:
        transcript = ask(session, [{"role": "user", "content": content}], "<MEASURE()>")
        row = log_of(session)[-1]
    assert text_of(transcript.messages[-2]) == f"{expected}\nSide?" and transcript.answer == "done"
    assert (row["event"], row["ok"], row["text"]) == ("call", expected == "3 slices", expected)


def test_the_expert_for_one_slice_says_so_of_a_series(tmp_path):
    from tests.helpers.ct_series import write_series

    write_series(tmp_path / "s", [0, 5, 10])
    content = [{"type": "volume", "volume": str(tmp_path / "s")}, {"type": "text", "text": "Side?"}]
    with ExpertSession(["LESIONS"]) as session:
        (call,) = ask(session, [{"role": "user", "content": content}], "<LESIONS()>").calls
    assert call.text == "error: needs one slice, this is a whole series"


class Wordy(Expert):
    """Names the patient just where a long result, or a long error, is cut."""

    card = ExpertCard("WORDY", "CT", "any", "words", ("result", "error"))

    def run(self, path, arguments):
        from vlm.experts.feedback import MAX_TEXT
        from vlm.experts.session import MAX_ERROR

        if arguments == ("error",):
            raise ExpertError("x " * ((MAX_ERROR - 4) // 2) + "Zebrowski^Annabel Q is not well")
        return ExpertResult("x " * ((MAX_TEXT - 4) // 2) + "Zebrowski^Annabel Q is well")


@pytest.mark.parametrize("what", ["result", "error"])
def test_a_name_that_is_cut_in_half_is_no_less_a_name(image, what):
    with ExpertSession(["WORDY"], instances={"WORDY": Wordy()}) as session:
        (call,) = ask(session, asked(image), f"<WORDY({what})>").calls
    assert call.ok == (what == "result") and "Zeb" not in call.text


def test_an_expert_that_finds_nothing_may_say_so(session, image):
    assert ask(session, asked(image), "<ODD(zero)>").calls[0].text == "0 lesions"
    assert log_of(session)[-1]["marked"] is False


def test_an_endless_result_is_cut(session, image):
    text = ask(session, asked(image), "<ODD(long)>").calls[0].text
    assert len(text) < 4100 and text.endswith("[cut]")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "a secondary capture (a screenshot)"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4", "Modality": "OT"}, "a secondary capture (a screenshot)"),
        (
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "Modality": "SR", "Rows": None, "PixelData": None},
            "a structured report without an image",
        ),
        ({"Modality": None}, "of no stated modality"),
        ({"Modality": "MR"}, "MR"),
    ],
)
def test_what_is_no_ct_image_gets_no_expert_and_a_reason(session, tmp_path, fields, kind):
    path = write_image(tmp_path / "ct_slice.dcm", **fields)
    transcript = ask(session, asked(path), "<ODD(fine)>")
    assert transcript.offered == [] and "Experts:" not in text_of(transcript.messages[0])
    assert transcript.notes == [f"image 1 is {kind}: no expert is offered for it"]
    assert transcript.calls[0].text == f"error: ODD is not available: it reads CT, the image is {kind}"
    rows = log_of(session)
    assert rows[0]["notes"] == transcript.notes and rows[1]["text"] == transcript.calls[0].text


def test_files_that_are_none_get_no_expert(session, tmp_path):
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    (tmp_path / "words.dcm").write_text("hello")
    (tmp_path / "v.nii.gz").write_bytes(b"\x1f\x8b broken")
    (tmp_path / "empty").mkdir()
    for name in ("broken.dcm", "words.dcm", "v.nii.gz", "empty", "absent.dcm", "bad\0name"):
        transcript = ask(session, asked(tmp_path / name), "<ODD(fine)>")
        assert transcript.offered == [] and len(transcript.notes) == 1 and not transcript.calls[0].ok


def test_each_expert_reads_the_image_that_fits_it(tmp_path):
    ct = write_image(tmp_path / "ct_1.dcm")
    dx, cr = (write_image(tmp_path / f"{kind}_2.dcm", Modality=kind.upper()) for kind in ("dx", "cr"))
    png = write_picture(tmp_path / "a.png")
    session = ExpertSession(["ODD", "XRAY"], instances={"ODD": Odd(), "XRAY": Other()}, max_calls=5)
    replies = ("<ODD(fine)>", "<XRAY()>", "<XRAY(image 2)>", "<XRAY(image 1)>", "<ODD(image 2)>")
    transcript = ask(session, asked(ct, dx, cr, png), *replies)
    assert [call.text for call in transcript.calls] == [
        "all fine",
        "read cr",
        "read dx",
        "error: XRAY cannot read image 1; it reads image 2, 3",
        "error: ODD cannot read image 2; it reads image 1",
    ]
    assert [call.file and call.file.rpartition("/")[2] for call in transcript.calls[:3]] == [
        "ct_1.dcm", "cr_2.dcm", "dx_2.dcm",
    ]  # fmt: skip
    first = text_of(transcript.messages[0])
    assert "> DX/CR: findings\nImages: an expert reads the last one that fits" in first
    assert transcript.notes == ["image 4 is of no stated modality: no expert is offered for it"]
    assert "Images:" not in text_of(ask(session, asked(ct, dx)).messages[0]), "nothing to choose, nothing to say"


def test_a_modality_that_the_header_does_not_state_may_be_stated_with_the_image(session, tmp_path):
    """By whoever makes the messages: NIfTI files and pictures have no field for it. A header is never overruled."""
    png, mr = write_picture(tmp_path / "a.png"), write_image(tmp_path / "mr.dcm", Modality="MR")
    capture = write_image(tmp_path / "sc.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")

    def offered(**item):
        messages = [{"role": "user", "content": [item, {"type": "text", "text": "Side?"}]}]
        return ask(session, messages, "<ODD(fine)>")

    assert offered(type="image", image=str(png), modality="CT").calls[0].ok
    assert offered(type="image", image=write_picture, source=str(png), modality="CT").offered == ["ODD"]
    assert offered(type="volume", volume=str(png), modality="CT").offered == ["ODD"]
    assert offered(type="image", image=str(png), modality="MR").notes == ["image 1 is MR: no expert is offered for it"]
    for file in (mr, capture):
        assert offered(type="image", image=str(file), modality="CT").offered == []
    assert "of no stated" in offered(type="image", image=str(png), modality="of Jane").notes[0]


def test_the_slices_of_one_volume_are_one_image_to_an_expert(session, tmp_path):
    path = write_image(tmp_path / "a.dcm")
    slices = [{"type": "image", "image": object(), "source": str(path)} for _ in range(3)]
    messages = [{"role": "user", "content": [*slices, {"type": "text", "text": "Side?"}]}]
    transcript = ask(session, messages, "<ODD(fine)>")
    assert transcript.calls[0].ok and "Images:" not in text_of(transcript.messages[0])


def test_an_image_that_is_too_large_is_refused_before_the_expert_sees_it(image, tmp_path):
    built = len(Odd.built)
    for limits, words in (
        ({"max_voxels": 1023}, "1,024 voxels, at most 1,023"),
        ({"max_bytes": 99}, "bytes, at most 99"),
    ):
        from vlm.experts import protocol

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(protocol._EXPERTS, "ODD", Odd)
            call = ask(ExpertSession(["ODD"], **limits), asked(image), "<ODD(fine)>").calls[0]
        assert call.text.startswith("error: the image is too large: ") and call.text.endswith(words)
    assert len(Odd.built) == built


@pytest.mark.parametrize(
    "words",
    [{"max_calls": 0}, {"call_seconds": 0}, {"call_seconds": float("inf")}, {"feedback": "mask"}, {"max_bytes": 0},
     {"isolation": "docker"}],
)  # fmt: skip
def test_settings_that_mean_nothing_are_named(words):
    with pytest.raises(ValueError, match=next(iter(words))):
        ExpertSession(**words)


def test_random_replies_never_end_a_session(image):
    """5,000 conversations of two replies each, made of the pieces that calls are made of."""
    rng = random.Random(8)
    words = ("fine", "raise", "refuse", "nan", "string", "empty", "other size", "zero", "mask", "leak", "image 1")
    pieces = (
        "<",
        ">",
        "(",
        ")",
        ",",
        " ",
        "\n",
        "ODD",
        "<ODD(",
        ")>",
        "NOBODY",
        "odd",
        "`",
        "＜",
        "\ud7ff",
        "\0",
        *words,
    )
    session = ExpertSession(["ODD"], instances={"ODD": Odd()}, max_calls=1)
    inputs = [asked(image) for _ in range(5000)]

    def reply(_):
        if rng.random() < 0.3:
            return f"{rng.choice(('', 'x '))}<{rng.choice(('ODD', 'NO'))}({rng.choice(words)})>{rng.choice(('', '<'))}"
        return "".join(rng.choice(pieces) for _ in range(rng.randrange(9)))

    transcripts = session.run_batch(lambda batch: list(map(reply, batch)), inputs)
    assert len(transcripts) == 5000 and any(call.ok for t in transcripts for call in t.calls)
    assert all(call.ok or call.text.startswith("error: ") for t in transcripts for call in t.calls)
    session.close()
