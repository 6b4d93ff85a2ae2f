"""An expert for the chest is not run on X-rays of other parts: what it says of them would be taught as true."""

import pytest

from tests.helpers.labelled_images import plant, random_findings, records_of, write_set
from training.data.expert_dialogues.make import Settings, make
from vlm.errors import RadioVLMError

pytest.importorskip("pydicom", reason="optional package absent: pydicom")


@pytest.fixture
def folder(tmp_path):
    write_set(tmp_path / "set", ct=1, dx=4, mr=0)
    random_findings(tmp_path / "weights")
    return tmp_path


def made(folder, name, **changes):
    summary = make(Settings(folder / "set", folder / name, expert_weights=folder / "weights", **changes))
    records = [one for part in (folder / name).glob("*/records.jsonl") for one in records_of(part.parent)]
    return summary, {one["meta"]["group"] for one in records if "FINDINGS" in str(one["messages"])}


@pytest.fixture
def extremities(folder):
    for number in range(1, 4):
        plant(folder / f"set/zebrowski/dx{number}.dcm", BodyPartExamined="EXTREMITY")


def test_only_images_of_the_region_are_read(folder, request):
    shares = {"expert": 4, "no_expert": 1, "fails": 1, "vqa": 1}
    summary, patients = made(folder, "chests", shares=shares)
    request.getfixturevalue("extremities")
    fewer, one = made(folder, "one", shares=shares)
    assert len(patients) == 4 and len(one) == 1
    assert fewer.calls < summary.calls and fewer.images == summary.images


def test_a_set_without_an_image_that_fits_says_so(folder, extremities):
    plant(folder / "set/zebrowski/dx0.dcm", BodyPartExamined="EXTREMITY")
    lines = (folder / "set/images.jsonl").read_text().splitlines(keepends=True)
    (folder / "set/images.jsonl").write_text("".join(lines[1:]))  # X-rays alone
    with pytest.raises(RadioVLMError, match="none reads their modalities and body parts"):
        made(folder, "none")
