"""Masks written as NIfTI and DICOM-SEG come back the same: voxels, geometry, label numbers and names, colours."""

import json
import random

import numpy as np
import pytest

from tests.helpers.optional import needs
from training.data.synthetic.slices import random_slice, render, write_dicom
from vlm.experts.colours import colour_rgb
from vlm.experts.mask_files import read_dicom_seg, read_nifti, save_dicom_seg, save_nifti
from vlm.experts.volumes import read_volume

LABELS = {1: "liver", 26: "hepatic tumor"}


@pytest.fixture
def mask():
    out = np.zeros((4, 96, 96), np.uint8)
    out[1:3, 10:40, 20:60], out[2, 20:25, 30:40] = 1, 26
    return out


@pytest.fixture
def series(tmp_path):
    """Four slices of one series, named so that the names' order is not the slices' order."""
    pydicom = pytest.importorskip("pydicom", reason="optional package absent: pydicom")
    folder = tmp_path / "series"
    folder.mkdir()
    item = random_slice(random.Random(1), 96, 1)
    for index in range(4):
        file = folder / f"{(index * 3) % 4}.dcm"
        write_dicom(file, render(item, index), item, index, "s")
        data = pydicom.dcmread(file)
        data.ImagePositionPatient = [-120, -120, 5.0 * index]
        for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            setattr(data, keyword, f"1.2.3.{len(keyword)}")
        data.save_as(file)
    return folder


def test_nifti_comes_back_the_same(tmp_path, mask):
    nibabel = pytest.importorskip("nibabel", reason="optional package absent: nibabel")
    affine = np.array([[0, -1.5, 0, 20], [2, 0, 0, -3], [0, 0, 5, 7], [0, 0, 0, 1.0]])
    save_nifti(tmp_path / "m.nii.gz", mask, affine, LABELS)
    again, geometry, labels = read_nifti(tmp_path / "m.nii.gz")
    assert np.array_equal(again, mask) and np.allclose(geometry, affine) and labels == LABELS
    image = nibabel.load(tmp_path / "m.nii.gz")
    assert image.shape == (96, 96, 4), "other programs see (w, h, d)"
    table = json.loads(image.header.extensions[0].get_content().decode().rstrip("\0 "))["labels"]
    assert tuple(table["26"]["rgb"]) == colour_rgb("hepatic tumor")


def test_a_mask_lies_on_its_series(tmp_path, mask, series):
    needs("nibabel")
    volume = read_volume(series)
    save_nifti(tmp_path / "m.nii.gz", mask, volume.affine, LABELS)
    again, geometry, _ = read_nifti(tmp_path / "m.nii.gz")
    assert np.allclose(geometry, volume.affine) and again.shape == volume.array.shape


def test_dicom_seg_comes_back_the_same(tmp_path, mask, series):
    needs("highdicom")
    import highdicom

    volume = read_volume(series)
    save_dicom_seg(tmp_path / "seg.dcm", mask, volume.files, LABELS, "VISTA3D")
    again, labels = read_dicom_seg(tmp_path / "seg.dcm")
    assert np.array_equal(again, mask) and labels == LABELS
    # the library's own reader agrees, slice by slice of the source
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    uids = [uid for _, _, uid in seg.get_source_image_uids()]
    pixels = seg.get_pixels_by_source_instance(uids, combine_segments=True)
    order = {str(volume_uid(file)): at for at, file in enumerate(volume.files)}
    for uid, frame in zip(uids, pixels):
        assert np.array_equal(frame, np.searchsorted([0, 1, 26], mask[order[str(uid)]]))
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["liver", "hepatic tumor"]


def volume_uid(file):
    import pydicom

    return pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID


def test_one_slice_is_enough(tmp_path, mask, series):
    needs("highdicom")
    file = read_volume(series).files[2]
    save_dicom_seg(tmp_path / "seg.dcm", mask[2], [file], LABELS, "LESIONS")
    again, labels = read_dicom_seg(tmp_path / "seg.dcm")
    assert np.array_equal(again, mask[2:3]) and labels == LABELS


def test_what_cannot_be_saved_is_said(tmp_path, mask, series):
    with pytest.raises(ValueError, match="label 26 of the mask has no name"):
        save_nifti(tmp_path / "m.nii", mask, np.eye(4), {1: "liver"})
    with pytest.raises(ValueError, match="D, H, W"):
        save_nifti(tmp_path / "m.nii", mask[0], np.eye(4), LABELS)
    needs("highdicom")
    files = read_volume(series).files
    with pytest.raises(ValueError, match="and its source"):
        save_dicom_seg(tmp_path / "seg.dcm", mask[:2], files, LABELS, "X")
    with pytest.raises(ValueError, match="empty"):
        save_dicom_seg(tmp_path / "seg.dcm", mask * 0, files, LABELS, "X")
