"""The header's body part: what fits a card's region, who is offered and refused, and what stays as it was."""

import json

import pytest

from tests.helpers.odd_experts import ask, asked, write_image, write_picture
from vlm.experts import Expert, ExpertCard, ExpertResult, ExpertSession
from vlm.experts.body_part import REGIONS, part_fits
from vlm.experts.image_facts import image_facts
from vlm.media.modality import BODY_PARTS

DX = {"Modality": "DX", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1"}


def expert(name, modality, region):
    class Saying(Expert):
        card = ExpertCard(name, modality, region, "words")

        def run(self, path, arguments):
            return ExpertResult(f"{name} ran")

    return Saying()


@pytest.fixture
def session(tmp_path):
    experts = {"CHEST": expert("CHEST", "DX/CR", "chest"), "ANY": expert("ANY", "CT", "any")}
    with ExpertSession(list(experts), instances=experts, log=tmp_path / "log.jsonl") as session:
        yield session


def logged(tmp_path):
    return [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("stated", "part"),
    [("CHEST", "CHEST"), ("Thorax", "CHEST"), ("whole body", "WHOLEBODY"), ("Zebrowski", None), ("", None),
     (None, None), (["CHEST", "ABDOMEN"], None)],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_header_states_a_term_of_the_list_or_nothing(tmp_path, stated, part):
    assert image_facts(write_image(tmp_path / "a.dcm", BodyPartExamined=stated)).body_part == part


def test_a_series_states_what_its_images_agree_on(tmp_path):
    def of(*parts):
        folder = tmp_path / "-".join(map(str, parts))
        folder.mkdir()
        for number, part in enumerate(parts):
            write_image(folder / f"{number}.dcm", BodyPartExamined=part)
        write_image(folder / "report.dcm", Modality="SR", Rows=None, BodyPartExamined="FOOT")
        return image_facts(folder).body_part

    assert (of("CHEST", "CHEST"), of("CHEST", None), of("CHEST", "FOOT"), of(None)) == ("CHEST", "CHEST", None, None)


def test_the_table_knows_the_terms_of_headers():
    assert {part for parts in REGIONS.values() for part in parts} <= set(BODY_PARTS)


@pytest.mark.parametrize(
    ("region", "inside", "outside"),
    [
        ("chest", {"CHEST", "LUNG", "RIB", "WHOLEBODY", None}, {"EXTREMITY", "HEAD", "ABDOMEN", "TSPINE"}),
        ("Brain", {"BRAIN", "HEAD", "SKULL", None}, {"CHEST", "NECK", "JAW"}),
        ("abdomen", {"ABDOMEN", "LIVER", None}, {"CHEST", "PELVIS"}),
        ("any", {*BODY_PARTS, None}, set()),
        ("left ear", {*BODY_PARTS, None}, set()),
    ],
)
def test_what_lies_in_a_region(region, inside, outside):
    card = ExpertCard("X", "CT", region, "words")
    assert all(part_fits(card, part) for part in inside) and not any(part_fits(card, part) for part in outside)


@pytest.mark.parametrize("part", ["CHEST", "LUNG", None, "CHESTABDPELVIS"])
def test_an_image_of_the_region_or_of_no_stated_part_is_read(session, tmp_path, part):
    transcript = ask(session, asked(write_image(tmp_path / "a.dcm", **DX, BodyPartExamined=part)), "<CHEST()>")
    assert transcript.offered == ["CHEST"] and transcript.notes == [] and transcript.calls[0].text == "CHEST ran"


def test_an_image_of_another_part_gets_no_card_and_a_call_is_refused(session, tmp_path):
    image = write_image(tmp_path / "a.dcm", **DX, BodyPartExamined="EXTREMITY")
    transcript = ask(session, asked(image), "<CHEST()>")
    note = "image 1 is DX of EXTREMITY: no expert is offered for it"
    refusal = "error: CHEST is not available: it reads DX/CR of the chest, the image shows EXTREMITY"
    assert transcript.offered == [] and transcript.notes == [note]
    assert transcript.calls[0].text == refusal and not transcript.calls[0].ok
    assert not any("Experts:" in str(message) for message in transcript.messages)
    offer, call = logged(tmp_path)
    assert (offer["experts"], offer["notes"]) == ([], [note]) and (call["text"], call["ok"]) == (refusal, False)
    [shown] = session.run_batch(  # a card that is shown on purpose is refused with the same words
        lambda batch: ["<CHEST()>" if len(one) == 1 else "done" for one in batch], [asked(image)],
        extra_cards=[["CHEST"]],
    )  # fmt: skip
    assert shown.calls[0].text == refusal


def test_another_modality_is_still_the_reason_where_it_is_one(session, tmp_path):
    image = write_image(tmp_path / "a.dcm", Modality="MR", BodyPartExamined="FOOT")
    transcript = ask(session, asked(image), "<CHEST()>")
    assert transcript.notes == ["image 1 is MR: no expert is offered for it"]
    assert transcript.calls[0].text == "error: CHEST is not available: it reads DX/CR, the image is MR"


def test_of_two_images_the_one_of_the_region_is_read(session, tmp_path):
    foot = write_image(tmp_path / "foot.dcm", **DX, BodyPartExamined="FOOT")
    chest = write_image(tmp_path / "chest.dcm", **DX, BodyPartExamined="CHEST")
    transcript = ask(session, asked(chest, foot), "<CHEST()>", "<CHEST(image 2)>")
    assert transcript.calls[0].file == str(chest)
    assert transcript.calls[1].text == "error: CHEST cannot read image 2; it reads image 1"


def test_a_picture_states_no_part(session, tmp_path):
    picture = write_picture(tmp_path / "a.png")
    assert [card.name for card in session.fitting(picture, "DX")] == ["CHEST"] and session.fitting(picture) == []
