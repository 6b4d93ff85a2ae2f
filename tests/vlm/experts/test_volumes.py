"""Volumes from NIfTI files and DICOM series: the same numbers and places, and clear refusals."""

import numpy as np
import pytest

from tests.helpers.ct_series import write_series
from vlm.experts import ExpertError, volumes
from vlm.experts.regions import measure, measure_labels, midline, regions_text
from vlm.experts.volumes import Volume, read_volume

nibabel = pytest.importorskip("nibabel", reason="optional package absent: nibabel")
pydicom = pytest.importorskip("pydicom", reason="optional package absent: pydicom")


def test_a_series_is_sorted_by_its_geometry(tmp_path):
    item = write_series(tmp_path / "s", [0, 5, 10, 15])
    (tmp_path / "s/notes.txt").write_text("not an image")
    volume = read_volume(tmp_path / "s")
    assert volume.array.shape == (4, 96, 96) and volume.modality == "CT"
    assert np.allclose(np.diff(volume.array, axis=0), 100, atol=1) and [f.name for f in volume.files][0] == "004.dcm"
    assert volume.voxel_ml == pytest.approx(item.spacing**2 * 5 / 1000)
    # DICOM's left and back are NIfTI's minus right and minus front
    assert np.allclose(volume.affine @ [0, 0, 2, 1], [120, 110, 10, 1])
    assert np.allclose(volume.affine @ [1, 0, 0, 1], [120 - item.spacing, 110, 0, 1])


@pytest.mark.parametrize(
    ("places", "changes", "message"),
    [
        ([0, 5, 15, 20], {}, "missing or stand twice"),
        ([0, 5, 5, 10], {}, "missing or stand twice"),
        ([0, 5], {}, "at least three"),
        ([0, 5, 10], {"SeriesInstanceUID": "9.9"}, "differ in SeriesInstanceUID"),
        ([0, 5, 10], {"PixelSpacing": [1, 1]}, "differ in PixelSpacing"),
        ([0, 5, 10], {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "differ in orientation"),
    ],
)
def test_a_series_that_leaves_its_geometry_open_is_refused(tmp_path, places, changes, message):
    write_series(tmp_path / "s", places, **changes)
    with pytest.raises(ExpertError, match=message):
        read_volume(tmp_path / "s")


def test_nifti_is_read_as_it_lies(tmp_path, monkeypatch):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    affine = np.diag([2, 3, 4, 1.0])
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.array.shape == (4, 3, 2) and volume.array[3, 2, 1] == array[1, 2, 3] and volume.modality is None
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2, 5), np.float32), affine), tmp_path / "b.nii")
    (tmp_path / "c.nii").write_bytes(b"\0" * 500)
    for name, message in (("b.nii", "three dimensions"), ("c.nii", "cannot read"), ("d.nii", "cannot read")):
        with pytest.raises(ExpertError, match=message):
            read_volume(tmp_path / name)
    with pytest.raises(ExpertError, match="not a single slice"):
        read_volume(tmp_path / "slice.dcm")
    monkeypatch.setattr(volumes, "MAX_VOXELS", 20)
    with pytest.raises(ExpertError, match="more than 20 voxels"):
        read_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("flip", [1, -1])
def test_regions_are_measured_in_the_patient(flip):
    """Two boxes on the patient's right, one on the left, whichever way the columns run."""
    array = np.zeros((10, 20, 40), np.float32)
    affine = np.diag([flip * 10.0, 10, 10, 1])
    volume, mask = Volume(array, affine), np.zeros(array.shape, np.uint8)
    low = slice(2, 6) if flip < 0 else slice(34, 38)
    mask[1:3, 2:4, low] = mask[6:8, 2:4, low] = 5
    mask[4, 4, 10 if flip > 0 else 30] = 7
    middle = midline(volume, np.ones(array.shape, bool))
    found = measure_labels(mask, {5: "liver", 7: "cyst"}, volume, middle)
    assert regions_text(found) == "liver: 32.0 ml, 2 parts, right; cyst: 1.0 ml, 1 part, left"
    assert measure(mask == 9, volume, middle) is None and regions_text([]) == "nothing found"
    assert regions_text(found * 6).endswith("; and 4 more")
