"""Copies for evaluation: pixels, geometry and what experts say are the same; nothing of the patient is left."""

import gzip

import numpy as np
import pytest

from tests.helpers.labelled_images import PLANTED, WORDS, plant, write_set
from tests.helpers.medical_files import body, write_enhanced, write_nifti, write_series
from training.data.expert_dialogues.plain_headers import plain_copy, plain_tree, sequence_word
from vlm.errors import SampleError
from vlm.experts import get_expert
from vlm.media.dicom import read_dicom
from vlm.media.volumes import read_volume

pydicom = pytest.importorskip("pydicom", reason="optional package absent: pydicom")


def assert_clean(path):
    content = path.read_bytes()
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    for word in WORDS:
        assert word.encode() not in content, word


def test_an_expert_says_the_same_of_a_copy(tmp_path):
    rows = write_set(tmp_path / "set", ct=3, dx=1, mr=0)
    lesions = get_expert("LESIONS")()
    for number, row in enumerate(rows):
        source, copy = tmp_path / "set" / row["image"], tmp_path / f"{number}.dcm"
        plain_copy(source, copy)
        assert_clean(copy)
        one, other = read_dicom(source), read_dicom(copy)
        assert np.array_equal(one.array, other.array) and one.image.tobytes() == other.image.tobytes()
        assert (one.modality, one.spacing, one.window) == (other.modality, other.spacing, other.window)
        if one.modality == "CT":
            assert lesions.run(source, ()).text == lesions.run(copy, ()).text
    assert WORDS[0].encode() in (tmp_path / "set" / rows[0]["image"]).read_bytes()  # it was planted


def test_uids_are_others_and_still_tell_series_apart(tmp_path):
    for folder in ("one", "two"):
        write_series(tmp_path / "in" / folder, body(), **PLANTED)
    plain_tree(tmp_path / "in", tmp_path / "out")
    before, after = (
        [pydicom.dcmread(file).SeriesInstanceUID for file in sorted((tmp_path / place).rglob("*")) if file.is_file()]
        for place in ("in", "out")
    )
    assert len(before) == len(after) == 10 and not set(before) & set(after)
    assert [uid == before[0] for uid in before] == [uid == after[0] for uid in after]


def test_series_frames_and_nifti_keep_their_voxels(tmp_path):
    values = body()
    write_series(tmp_path / "series", values, **PLANTED)
    plain_tree(tmp_path / "series", tmp_path / "copied")
    write_enhanced(tmp_path / "frames.dcm", values, **PLANTED)
    write_nifti(tmp_path / "n.nii.gz", values)
    for source, copy in (("series", "copied"), ("frames.dcm", "frames2.dcm"), ("n.nii.gz", "n2.nii.gz")):
        if source != "series":
            plain_copy(tmp_path / source, tmp_path / copy)
            assert_clean(tmp_path / copy)
        one, other = (read_volume(tmp_path / path, "CT") for path in (source, copy))
        assert np.array_equal(one.array, other.array) and np.allclose(one.affine, other.affine)
    for file in (tmp_path / "copied").iterdir():
        assert_clean(file)


def test_texts_and_extensions_of_a_nifti_are_gone(tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="optional package absent: nibabel")
    for kind, name in ((nibabel.Nifti1Image, "a.nii.gz"), (nibabel.Nifti2Image, "b.nii")):
        image = kind(body(), np.eye(4))
        image.header["descrip"], image.header["aux_file"] = b"Zebrowski", b"MRN-4711"
        image.header["intent_name"] = b"Annabel"
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Quackenbush"))
        image.to_filename(tmp_path / name)
        plain_copy(tmp_path / name, tmp_path / f"copy-{name}.nii.gz")
        assert_clean(tmp_path / f"copy-{name}.nii.gz")
        again = nibabel.load(tmp_path / f"copy-{name}.nii.gz")
        assert np.array_equal(np.asarray(again.dataobj), body()) and not again.header.extensions


def test_a_sequence_is_kept_as_a_word_and_nothing_else_of_the_text(tmp_path):
    write_series(tmp_path / "in" / "Zebrowski_t1ce", body(), Modality="MR", SeriesDescription="T2 FLAIR Zebrowski")
    assert sequence_word(tmp_path / "Zebrowski_t1ce") == "t1ce" and sequence_word(tmp_path / "t12") is None
    plain_tree(tmp_path / "in", tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name == "00000_t1ce"
    data = pydicom.dcmread(sorted(folder.iterdir())[0])
    assert data.SeriesDescription == "flair" and data.Modality == "MR" and "PatientName" not in data


def test_private_elements_and_odd_numbers_stay_behind(tmp_path):
    write_series(tmp_path / "s", body())
    file = next((tmp_path / "s").iterdir())
    data = pydicom.dcmread(file)
    data.private_block(0x0011, "Zebrowski", create=True).add_new(1, "LO", "Annabel")
    data.ImageType = ["ORIGINAL", "PRIMARY", "Quackenbush"]
    data.save_as(file)
    plant(file)
    plain_copy(file, tmp_path / "copy.dcm")
    assert_clean(tmp_path / "copy.dcm")
    assert list(pydicom.dcmread(tmp_path / "copy.dcm").ImageType) == ["ORIGINAL", "PRIMARY"]


def test_a_damaged_file_leaves_no_copy(tmp_path):
    (tmp_path / "bad.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\1" * 40)
    (tmp_path / "bad.nii.gz").write_bytes(b"\x1f\x8b" + b"\0" * 30)
    for name in ("bad.dcm", "bad.nii.gz"):
        with pytest.raises(SampleError):
            plain_copy(tmp_path / name, tmp_path / f"copy-{name}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.dcm", "bad.nii.gz"]


def test_words_under_a_name_that_should_hold_numbers_stay_behind(tmp_path):
    """A file says itself what kind of value an element holds."""
    write_series(tmp_path / "s", body())
    data = pydicom.dcmread(next((tmp_path / "s").iterdir()))
    data.add_new("SpacingBetweenSlices", "LT", "Zebrowski")
    data.add_new("PixelAspectRatio", "UT", "Quackenbush")
    data.save_as(tmp_path / "odd.dcm")
    assert b"Quackenbush" in (tmp_path / "odd.dcm").read_bytes()
    plain_copy(tmp_path / "odd.dcm", tmp_path / "copy.dcm")
    assert_clean(tmp_path / "copy.dcm")


def test_a_link_back_to_the_folder_is_not_followed(tmp_path):
    write_series(tmp_path / "s", body())
    (tmp_path / "s" / "again").symlink_to(tmp_path / "s")
    plain_tree(tmp_path / "s", tmp_path / "copy")
    assert len(list((tmp_path / "copy").rglob("*"))) == 5


@pytest.mark.parametrize("damage", ["deflate", "offset"])
def test_a_damaged_nifti_is_bad_input(tmp_path, damage):
    content = bytearray(write_nifti(tmp_path / "n.nii", body()).read_bytes())
    if damage == "offset":
        content[108:112] = np.float32("nan").tobytes()
    else:
        content = bytearray(gzip.compress(bytes(content)))
        content[40:60] = b"\xff" * 20
    name = tmp_path / ("a.nii" if damage == "offset" else "a.nii.gz")
    name.write_bytes(content)
    with pytest.raises(SampleError) as error:
        plain_copy(name, tmp_path / "copy.nii.gz")
    assert error.value.reason == "bad_nifti" and not (tmp_path / "copy.nii.gz").exists()
