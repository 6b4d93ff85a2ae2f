"""NIfTI: scaled values, affines and their warnings, 4D, bounded reading; a modality is asked for, never guessed."""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.medical_files import affine_of, body, write_nifti
from vlm.errors import SampleError
from vlm.media import load_image, read_volume
from vlm.media.nifti import read_nifti, read_nifti_frames

nibabel = pytest.importorskip("nibabel", reason="optional package absent: nibabel")
VOLUME = body()


def refused(reason: str, *args, reader=read_nifti, **options) -> str:
    with pytest.raises(SampleError) as caught:
        reader(*args, **options)
    assert caught.value.reason == reason, caught.value
    return caught.value.message


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_values_agree_with_nibabel(tmp_path: Path, name: str):
    path = write_nifti(tmp_path / name, VOLUME, slope=(0.5, -3))
    volume = read_nifti(path)
    assert np.allclose(volume.array, nibabel.load(path).get_fdata()) and np.allclose(volume.affine, affine_of())
    assert not np.allclose(volume.array, VOLUME) and volume.modality == "" and volume.warnings == ()


def test_nifti2_big_endian_and_floats(tmp_path: Path):
    nibabel.Nifti2Image(VOLUME.astype(np.float64), affine_of()).to_filename(tmp_path / "x.nii")
    assert np.array_equal(read_nifti(tmp_path / "x.nii").array, VOLUME)
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nibabel.Nifti1Image(VOLUME.astype(">i2"), affine_of(), header).to_filename(tmp_path / "y.nii")
    assert np.array_equal(read_nifti(tmp_path / "y.nii").array, VOLUME)


def test_modality_is_asked_for(tmp_path: Path):
    path = write_nifti(tmp_path / "mri_brain.nii", VOLUME)
    message = refused("no_modality", path, reader=read_volume)
    assert "give it" in message and "not guessed" in message
    assert read_volume(path, modality="mri").modality == "MR"
    assert "known are" in refused("unknown_modality", path, modality="brain", reader=read_volume)


def test_orientation_warnings(tmp_path: Path):
    silent = write_nifti(tmp_path / "x.nii", VOLUME)
    raw = bytearray(silent.read_bytes())
    raw[252:256] = bytes(4)  # qform_code and sform_code
    silent.write_bytes(raw)
    assert any("states no orientation" in words for words in read_nifti(silent).warnings)
    image = nibabel.Nifti1Image(VOLUME, affine_of())
    image.set_qform(np.diag([-1.0, 1, 1, 1]), 1)
    image.set_sform(affine_of(), 1)
    image.to_filename(tmp_path / "y.nii")
    volume = read_nifti(tmp_path / "y.nii")
    assert any("differ" in words for words in volume.warnings) and np.allclose(volume.affine, affine_of())
    image = nibabel.Nifti1Image(VOLUME, None)
    image.set_qform(affine_of(), 1)
    image.set_sform(None, 0)
    image.to_filename(tmp_path / "z.nii")
    assert np.allclose(read_nifti(tmp_path / "z.nii").affine, affine_of(), atol=1e-4)


def test_units_become_millimetres(tmp_path: Path):
    image = nibabel.Nifti1Image(VOLUME, affine_of() * [[0.001], [0.001], [0.001], [1]])
    image.header.set_xyzt_units("meter")
    image.to_filename(tmp_path / "x.nii")
    assert np.allclose(read_nifti(tmp_path / "x.nii").affine, affine_of(), atol=1e-3)


def test_4d_needs_a_frame_or_names(tmp_path: Path):
    four = np.stack([body(seed=i) for i in range(4)], -1)
    path = write_nifti(tmp_path / "x.nii.gz", four)
    assert "holds 4 volumes" in refused("bad_frame", path)
    assert np.array_equal(read_nifti(path, frame=2).array, four[..., 2])
    refused("bad_frame", path, frame=4)
    named = read_nifti_frames(path, ("t1ce", "t1", "t2", "flair"), "MR")
    assert all(np.array_equal(volume.array, four[..., i]) for i, volume in enumerate(named.values()))
    assert list(read_nifti_frames(path)) == ["frame 0", "frame 1", "frame 2", "frame 3"]
    assert "3 names" in refused("bad_channels", path, ("a", "b", "c"), reader=read_nifti_frames)
    one = write_nifti(tmp_path / "y.nii", four[..., :1])
    assert read_nifti(one).array.shape == VOLUME.shape
    flat = write_nifti(tmp_path / "z.nii", VOLUME[..., 0])
    assert read_nifti(flat).array.shape == (6, 8, 1)


def test_what_is_refused(tmp_path: Path):
    path = write_nifti(tmp_path / "x.nii", VOLUME)
    raw = path.read_bytes()
    (tmp_path / "cut.nii").write_bytes(raw[:-5])
    assert "cut off" in refused("bad_pixels", tmp_path / "cut.nii")
    (tmp_path / "cut.nii.gz").write_bytes(gzip.compress(raw)[:-30])
    assert "cut off" in refused("bad_pixels", tmp_path / "cut.nii.gz")
    (tmp_path / "text.nii").write_bytes(b"no volume " * 100)
    refused("not_nifti", tmp_path / "text.nii")
    (tmp_path / "empty.nii").write_bytes(b"")
    refused("empty_file", tmp_path / "empty.nii")
    refused("missing_file", tmp_path / "absent.nii")
    complex_voxels = write_nifti(tmp_path / "c.nii", VOLUME.astype(np.complex64))
    assert "complex" in refused("bad_pixels", complex_voxels)
    nibabel.Nifti1Pair(VOLUME, affine_of()).to_filename(tmp_path / "pair.img")
    (tmp_path / "pair.nii").write_bytes((tmp_path / "pair.hdr").read_bytes())
    assert "pair" in refused("not_nifti", tmp_path / "pair.nii")
    holed = write_nifti(tmp_path / "n.nii", np.where(VOLUME == 7, np.nan, VOLUME).astype(np.float32))
    assert read_nifti(holed).warnings == ("NaN voxels became 0",)


def test_as_an_image_it_is_told_what_to_do(tmp_path: Path):
    with pytest.raises(SampleError, match="'type': 'volume'"):
        load_image(write_nifti(tmp_path / "x.nii", VOLUME))


def test_small_files_cannot_unpack_to_more_than_their_shape_and_that_is_bounded(tmp_path: Path):
    path = write_nifti(tmp_path / "x.nii", VOLUME)
    head = bytearray(path.read_bytes())
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(gzip.compress(bytes(head) + bytes(64_000_000), 9))
    tracemalloc.start()
    assert np.array_equal(read_nifti(bomb).array, VOLUME)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert bomb.stat().st_size < 100_000 and peak < 8_000_000, peak
    head[42:48] = np.array([4000, 4000, 4000], "<i2").tobytes()
    (tmp_path / "huge.nii").write_bytes(head)
    assert "4000 x 4000 x 4000" in refused("too_large", tmp_path / "huge.nii")
    head[108:112] = np.array([1e9], "<f4").tobytes()
    (tmp_path / "far.nii").write_bytes(head)
    refused("not_nifti", tmp_path / "far.nii")
