"""Headers: modality, size and identifiers of files, series folders, NIfTI and pictures, and of the real files."""

import gzip
import struct

import pytest

from tests.helpers.odd_experts import PATIENT, write_image, write_picture
from tests.helpers.shared import shared_path
from vlm.experts.image_facts import image_facts


def test_a_dicom_file(tmp_path):
    facts = image_facts(write_image(tmp_path / "a.dcm", NumberOfFrames=3, PixelData=bytes(3 * 1024)))
    assert (facts.modality, facts.kind, facts.voxels, facts.shape) == ("CT", "CT", 3072, (32, 32))
    assert set(PATIENT.values()) - {"Zebrowski^Annabel Q"} < set(facts.identifiers), "identifiers are found"
    assert "Zebrowski^Annabel^Q" in facts.identifiers, "a name's parts stand apart"


def test_a_series_is_what_all_its_images_are(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    for number in range(3):
        write_image(folder / f"{number}.dcm", PatientID=f"ID-{number}")
    write_image(folder / "report.dcm", Modality="SR", Rows=None)
    (folder / "notes.txt").write_text("words")
    facts = image_facts(folder)
    assert (facts.modality, facts.voxels) == ("CT", 3 * 1024) and facts.size > 3 * 1024
    assert {"ID-0", "ID-1", "ID-2"} < set(facts.identifiers)
    write_image(folder / "x.dcm", Modality="MR")
    (folder / "other").mkdir()
    assert (
        image_facts(folder).modality is None and image_facts(folder).kind == "a folder of several modalities (CT, MR)"
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_size_of_a_nifti_file_is_known_and_its_modality_is_not(tmp_path, order, packed):
    head = struct.pack(f"{order}i36x8h", 348, 3, 512, 512, 2000, 1, 1, 1, 1).ljust(344, b"\0") + b"n+1\0" + bytes(4)
    path = tmp_path / ("v.nii.gz" if packed else "v.nii")
    path.write_bytes(gzip.compress(head) if packed else head)
    facts = image_facts(path)
    assert facts.voxels == 512 * 512 * 2000 and facts.modality is None


def test_pictures(tmp_path):
    facts = image_facts(write_picture(tmp_path / "ct.png", (40, 30)))
    assert (facts.modality, facts.shape, facts.voxels) == (None, (30, 40), 1200)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("value", ["BAD\0", "x" * 200, "CT/../x", ""])
def test_an_odd_modality_stays_out_of_messages(tmp_path, value):
    facts = image_facts(write_image(tmp_path / "a.dcm", Modality=value))
    assert facts.kind in ("of no stated modality", "BAD")


def test_every_real_file_has_facts():
    files = sorted(shared_path("data/dicom").rglob("*.dcm"))
    assert files and all(image_facts(file).kind for file in files)
