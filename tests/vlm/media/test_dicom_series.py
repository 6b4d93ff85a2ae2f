"""Series folders and multi-frame objects as volumes: order by geometry alone, RAS, and what is wrong said in words."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.medical_files import (
    affine_of,
    body,
    cut,
    new_dataset,
    save,
    write_enhanced,
    write_nifti,
    write_series,
)
from tests.helpers.shared import shared_path
from vlm.errors import SampleError
from vlm.media import read_volume
from vlm.media.dicom_series import list_series, read_series
from vlm.media.volume import Volume, ras_axes, same_grid, to_ras

pydicom = pytest.importorskip("pydicom", reason="optional package absent: pydicom")
VOLUME = body()


def refused(reason: str, *args, **options) -> str:
    with pytest.raises(SampleError) as caught:
        read_series(*args, **options)
    assert caught.value.reason == reason, caught.value
    return caught.value.message


@pytest.mark.parametrize("way", ["axial", "coronal", "sagittal"])
def test_slices_in_any_file_order_and_direction_give_the_volume(tmp_path: Path, way: str):
    write_series(tmp_path, VOLUME, way, seed=3, RescaleSlope=2, RescaleIntercept=-1000)
    volume = read_series(tmp_path)
    assert np.array_equal(volume.array, VOLUME.astype(np.float32) * 2 - 1000)
    assert np.allclose(volume.affine, affine_of()) and np.allclose(volume.spacing, (0.8, 1.2, 5.0))
    assert volume.modality == "CT" and volume.warnings == ()
    by_name = sorted(tmp_path.iterdir())
    names = [pydicom.dcmread(path).pixel_array for path in by_name]
    in_order = [pixels for pixels, *_ in cut(VOLUME, way)]
    assert not all(np.array_equal(a, b) for a, b in zip(names, in_order)), "file names must be in another order"


def test_dicom_and_nifti_of_one_volume_are_the_same(tmp_path: Path):
    pytest.importorskip("nibabel", reason="optional package absent: nibabel")
    write_series(tmp_path / "dicom", VOLUME)
    one = read_volume(tmp_path / "dicom")
    two = read_volume(write_nifti(tmp_path / "x.nii.gz", VOLUME), modality="CT")
    assert np.array_equal(one.array, two.array) and same_grid(one, two) and one.modality == two.modality
    turned = np.flip(VOLUME.transpose(2, 0, 1), 1)  # stored as (z, -x, y)
    affine = affine_of()[:, [2, 0, 1, 3]].copy()
    affine[:3, 3] += affine[:3, 1] * (VOLUME.shape[0] - 1)
    affine[:3, 1] *= -1
    three = read_volume(write_nifti(tmp_path / "y.nii", turned, affine), modality="CT")
    assert np.array_equal(one.array, three.array) and same_grid(one, three)


def test_ras_agrees_with_nibabel_on_oblique_volumes():
    nibabel = pytest.importorskip("nibabel", reason="optional package absent: nibabel")
    generator = np.random.default_rng(1)
    agreed = 0
    for _ in range(40):
        turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
        affine = np.eye(4)
        affine[:3, :3] = turn * generator.uniform(0.5, 5, 3)
        affine[:3, 3] = generator.normal(size=3) * 50
        image = nibabel.as_closest_canonical(nibabel.Nifti1Image(VOLUME, affine))
        ours = to_ras(Volume(VOLUME.astype(np.float32), affine))
        same = np.allclose(ours.affine, image.affine, atol=1e-3)
        agreed += same
        if same:
            assert np.array_equal(ours.array, np.asarray(image.dataobj))
        assert ras_axes(ours.affine) == ((0, 1, 2), (False, False, False)), "a second time changes nothing"
    assert agreed >= 36, "near 45 degrees the nearest axis is a matter of taste"


def test_enhanced_multiframe_in_any_frame_order(tmp_path: Path):
    path = write_enhanced(tmp_path / "x.dcm", VOLUME, order=[3, 0, 4, 1, 2], slope=2, intercept=-5)
    volume = read_volume(path)
    assert np.array_equal(volume.array, VOLUME.astype(np.float32) * 2 - 5) and np.allclose(volume.affine, affine_of())
    assert np.array_equal(read_volume(tmp_path).array, volume.array), "a folder with the one file"


def test_missing_slices_are_named_and_can_be_accepted(tmp_path: Path):
    paths = write_series(tmp_path, body((4, 4, 9)))
    paths[4].unlink()
    paths[5].unlink()
    message = refused("missing_slices", tmp_path)
    assert "about 2 slices are missing among 7" in message and "behind slice 4 (15.00 mm instead of 5.00)" in message
    volume = read_series(tmp_path, strict=False)
    assert volume.array.shape == (4, 4, 7) and "distances along the volume are wrong" in volume.warnings[0]


def test_uneven_spacing_is_a_warning(tmp_path: Path):
    paths = write_series(tmp_path, VOLUME)
    data = pydicom.dcmread(paths[2])
    data.ImagePositionPatient[2] += 0.5
    data.save_as(paths[2])
    assert any("unevenly spaced: 4.50 to 5.50 mm" in words for words in read_series(tmp_path).warnings)


def test_tilted_gantry_is_a_warning_and_a_sheared_affine(tmp_path: Path):
    for index, path in enumerate(write_series(tmp_path, VOLUME)):
        data = pydicom.dcmread(path)
        data.ImagePositionPatient[1] += 1.5 * index
        data.save_as(path)
    volume = read_series(tmp_path)
    assert any("gantry tilt" in words for words in volume.warnings) and abs(volume.affine[1, 2] + 1.5) < 1e-6


def test_mixed_orientations(tmp_path: Path):
    write_series(tmp_path, VOLUME, SeriesInstanceUID="1.2.3")
    write_series(tmp_path, body((8, 8, 6)), "coronal", prefix="scout", SeriesInstanceUID="1.2.3", Rows=8, Columns=6)
    message = refused("mixed_orientations", tmp_path)
    assert "5 axial" in message and "8 coronal" in message


def test_mixed_sizes_and_spacings(tmp_path: Path):
    paths = write_series(tmp_path / "a", VOLUME)
    data = new_dataset(paths[0], np.zeros((3, 3), np.int16))
    old = pydicom.dcmread(paths[0])
    for key in ("SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        setattr(data, key, old[key].value)
    save(data, paths[0])
    assert "4 of 8 x 6, 1 of 3 x 3" in refused("mixed_sizes", tmp_path / "a")
    paths = write_series(tmp_path / "b", VOLUME)
    data = pydicom.dcmread(paths[1])
    data.PixelSpacing = [2.0, 2.0]
    data.save_as(paths[1])
    assert "1 of 2 x 2 mm" in refused("mixed_spacing", tmp_path / "b")


def test_copies_and_several_at_one_place(tmp_path: Path):
    paths = write_series(tmp_path / "a", VOLUME)
    (tmp_path / "a/copy").write_bytes(paths[1].read_bytes())
    volume = read_series(tmp_path / "a")
    assert np.array_equal(volume.array, VOLUME) and "1 of 6 files are copies" in volume.warnings[0]

    second = body(seed=1)
    write_series(tmp_path / "b", VOLUME, SeriesInstanceUID="1.2", EchoTime=10)
    write_series(tmp_path / "b", second, prefix="z", SeriesInstanceUID="1.2", EchoTime=90)
    assert "2 images at each of 5 places" in refused("several_at_one_place", tmp_path / "b")
    assert np.array_equal(read_series(tmp_path / "b", pick=1).array, VOLUME)
    assert np.array_equal(read_series(tmp_path / "b", pick=2).array, second)
    (tmp_path / "b/z000").unlink()
    assert "4 of 5 places hold several images" in refused("several_at_one_place", tmp_path / "b", pick=1)


def test_two_series_are_listed_and_chosen(tmp_path: Path):
    write_series(tmp_path / "one", VOLUME, SeriesNumber=1)
    write_series(tmp_path / "two", body((6, 8, 4), seed=2), SeriesNumber=2, Modality="MR", SeriesDescription="Ax FLAIR")
    message = refused("several_series", tmp_path)
    assert "series 1: CT, 5 axial slices of 8 x 6; series 2: MRI (flair), 4 axial slices of 8 x 6" in message
    assert read_series(tmp_path, 2).array.shape == (6, 8, 4) and read_series(tmp_path, 2).sequence == "flair"
    refused("bad_series", tmp_path, 3)


def test_what_is_no_slice_is_left_out_and_counted(tmp_path: Path):
    write_series(tmp_path, VOLUME)
    (tmp_path / "notes.txt").write_text("nothing")
    report = new_dataset(tmp_path / "sr", VOLUME[..., 0], "1.2.840.10008.5.1.4.1.1.88.11", Modality="SR")
    del report.PixelData
    save(report, tmp_path / "sr")
    warnings = read_series(tmp_path).warnings
    assert "1 files left out: a structured report" in warnings and "1 files left out: no DICOM files" in warnings
    for path in tmp_path.glob("im*"):
        path.unlink()
    assert "a structured report" in refused("no_slices", tmp_path)


def test_screenshots_are_no_slices(tmp_path: Path):
    write_series(tmp_path, VOLUME, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    assert "screenshots" in refused("not_a_volume", tmp_path)


def test_without_geometry_nothing_is_ordered(tmp_path: Path):
    for path in write_series(tmp_path, VOLUME):
        data = pydicom.dcmread(path)
        del data.ImagePositionPatient
        data.save_as(path)
    assert "5 of 5 slices do not say where they are" in refused("no_geometry", tmp_path)
    cine = save(new_dataset(tmp_path / "cine.dcm", VOLUME, Modality="US"), tmp_path / "cine.dcm")
    with pytest.raises(SampleError, match="frames in time"):
        read_volume(cine)


def test_a_damaged_slice_is_named_by_number(tmp_path: Path):
    path = write_series(tmp_path, VOLUME)[3]
    path.write_bytes(path.read_bytes()[:-20])
    assert "slice 4 (file" in refused("bad_pixels", tmp_path)


def test_bounds_and_absence(tmp_path: Path):
    write_series(tmp_path, VOLUME)
    assert "6 x 8 x 5" in refused("too_large", tmp_path, max_voxels=100)
    refused("missing_file", tmp_path / "absent")


def test_real_enhanced_ct():
    volume = read_volume(shared_path("data/dicom/eCT_Supplemental.dcm"))
    assert volume.array.shape == (512, 512, 2) and volume.modality == "CT"
    assert volume.spacing == pytest.approx((0.388672, 0.388672, 10)) and volume.array.min() < -500
    with pytest.raises(SampleError, match="no functional groups"):
        read_volume(shared_path("data/dicom/emri_small.dcm"))
    (series,), _ = list_series([shared_path("data/dicom/CT_small.dcm")])
    assert series.modality == "CT" and not series.is_multiframe
