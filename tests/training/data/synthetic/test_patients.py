"""The embedded labelled images: DICOM of three modalities, labels that the expert confirms, splits kept apart."""

import json

import pytest

from training.data.synthetic import patients
from training.data.synthetic.mr_slices import CONTRASTS, random_head, render
from vlm.experts import ExpertError
from vlm.experts.ct_lesions import CTLesions
from vlm.experts.image_facts import image_facts

pytest.importorskip("pydicom", reason="optional package absent: pydicom")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("patients")
    patients.write(out, "test", 3, 60)
    return out


@pytest.fixture(scope="module")
def rows(folder):
    return [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]


def test_modalities_stand_in_the_headers_and_are_mixed_as_said(folder, rows):
    modalities = [image_facts(folder / row["image"]).modality for row in rows]
    assert [row["id"].split("-")[0].upper() for row in rows] == modalities
    counts = [modalities.count(name) for name in ("CT", "DX", "MR")]
    assert all(abs(count - wanted) <= 1 for count, wanted in zip(counts, (27, 24, 9)))
    for row, modality in zip(rows, modalities):
        asked = {one["kind"]: one["answer"] for one in row["qa"]}
        assert asked.get("modality", modality) == modality and (modality == "CT" or "modality" in asked)
        assert set(row["labels"]) <= (
            {"number", "side", "size"} if modality == "CT" else {"cardiomegaly", "effusion", "nodule"}
        )


def test_the_expert_confirms_the_labels_and_fails_where_the_header_is_silent(folder, rows):
    expert, silent = CTLesions(), 0
    for row in rows:
        if not row["id"].startswith("ct"):
            continue
        if not row["labels"]:
            silent += 1
            with pytest.raises(ExpertError, match="no spacing or orientation"):
                expert.run(folder / row["image"], ())
            continue
        found = expert.run(folder / row["image"], ()).findings["lesions"]
        assert len(found) == row["labels"]["number"]
        if found:
            assert (found[0]["side"], round(found[0]["mm"])) == (row["labels"]["side"], row["labels"]["size"])
    assert 0 < silent < 8


def test_the_same_seed_gives_the_same_files_and_no_patient_is_in_two_splits(folder, rows, tmp_path):
    patients.write(tmp_path / "again", "test", 3, 60)
    patients.write(tmp_path / "train", "train", 3, 60)
    for file in sorted(folder.rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(folder)).read_bytes()
    train = [json.loads(line) for line in (tmp_path / "train" / "images.jsonl").read_text().splitlines()]
    assert not {row["patient"] for row in rows} & {row["patient"] for row in train}
    assert {(folder / row["image"]).read_bytes() for row in rows if "dx" in row["id"]}.isdisjoint(
        (tmp_path / "train" / row["image"]).read_bytes() for row in train
    )
    assert len({row["patient"] for row in rows}) < len(rows)  # some have two images


def test_the_order_of_brightness_is_the_sequence():
    import random

    head = random_head(random.Random(0))
    x = int(96 * (0.5 + head.ventricle[0] * 1.4))
    for name, (_, brain, fluid, _) in CONTRASTS.items():
        picture = render(head, name, 1, noise=0.0)
        assert (picture[48, x] > picture[48, 20]) == (fluid > brain)


def test_too_small_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="size must be at least 64"):
        patients.write(tmp_path, "test", 0, 1, size=32)
