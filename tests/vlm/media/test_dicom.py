"""DICOM: physical values, windows, inversion, colour, frames; every real file opens or says why not."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.shared import shared_path
from vlm.errors import SampleError
from vlm.media import load_image
from vlm.media.dicom import read_dicom

pydicom = pytest.importorskip("pydicom", reason="optional package absent: pydicom")


def write(path: Path, pixels: np.ndarray, **tags) -> Path:
    """An uncompressed file of `pixels` (H, W), (F, H, W) or (H, W, 3)."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    color = pixels.ndim == 3 and pixels.shape[-1] == 3
    data.Modality = "CT"
    data.SamplesPerPixel = 3 if color else 1
    data.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    if color:
        data.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    data.Rows, data.Columns = pixels.shape[:2] if color or pixels.ndim == 2 else pixels.shape[1:]
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


RAMP = np.arange(16, dtype=np.int16).reshape(4, 4) * 100


def test_rescale_and_window(tmp_path: Path):
    path = write(
        tmp_path / "x.dcm",
        RAMP,
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=500,
        WindowWidth=1001,
        PixelSpacing=[0.5, 0.7],
    )
    scan = read_dicom(path)
    assert np.array_equal(scan.array, RAMP.astype(np.float32) * 2 - 1000)
    assert scan.window == (500, 1001) and scan.spacing == (0.5, 0.7) and scan.modality == "CT"
    grey = np.asarray(scan.image)[..., 0].astype(int)
    expected = np.clip((scan.array - 499.5) / 1000 + 0.5, 0, 1) * 255
    assert np.abs(grey - expected).max() <= 0.5 and grey.min() == 0 and grey.max() == 255
    wide = read_dicom(path, window=(0, 100_000))
    assert wide.window == (0, 100_000) and np.ptp(np.asarray(wide.image)) < 12


def test_without_window_from_minimum_to_maximum(tmp_path: Path):
    grey = np.asarray(read_dicom(write(tmp_path / "x.dcm", RAMP)).image)[..., 0]
    assert grey[0, 0] == 0 and grey[-1, -1] == 255 and (np.diff(grey.ravel().astype(int)) > 0).all()
    flat = read_dicom(write(tmp_path / "flat.dcm", RAMP * 0))
    assert np.isfinite(np.asarray(flat.image)).all()


def test_several_windows_take_the_first_and_silly_ones_none(tmp_path: Path):
    several = write(tmp_path / "x.dcm", RAMP, WindowCenter=[40, 600], WindowWidth=[80, 1500])
    assert read_dicom(several).window == (40, 80)
    silly = write(tmp_path / "y.dcm", RAMP, WindowCenter=40, WindowWidth=0)
    assert read_dicom(silly).window == (750.5, 1501)


def test_monochrome1_is_inverted(tmp_path: Path):
    normal = np.asarray(read_dicom(write(tmp_path / "x.dcm", RAMP)).image)
    inverse = np.asarray(read_dicom(write(tmp_path / "y.dcm", RAMP, PhotometricInterpretation="MONOCHROME1")).image)
    assert np.array_equal(normal, 255 - inverse)


def test_colour_stays_colour(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    scan = read_dicom(write(tmp_path / "x.dcm", pixels))
    assert np.array_equal(np.asarray(scan.image), pixels) and scan.window is None


def test_frames(tmp_path: Path):
    stack = np.stack([RAMP + 1000 * i for i in range(5)]).astype(np.int16)
    path = write(tmp_path / "x.dcm", stack)
    assert read_dicom(path).frame == 2 and np.array_equal(read_dicom(path).array, stack[2])
    assert np.array_equal(read_dicom(path, frame="first").array, stack[0])
    assert np.array_equal(read_dicom(path, frame=4).array, stack[4])
    with pytest.raises(SampleError) as caught:
        read_dicom(path, frame=5)
    assert caught.value.reason == "bad_frame"


def test_load_image_knows_dicom_by_magic_and_by_suffix(tmp_path: Path):
    named = write(tmp_path / "x.dcm", RAMP)
    plain = tmp_path / "noname"
    plain.write_bytes(named.read_bytes())
    raw = tmp_path / "bare.dcm"
    raw.write_bytes(named.read_bytes()[132:])
    expected = np.asarray(read_dicom(named).image)
    for source in (named, plain, named.read_bytes(), raw):
        assert np.array_equal(np.asarray(load_image(source)), expected)


def test_bad_files_are_named(tmp_path: Path):
    good = write(tmp_path / "good.dcm", RAMP).read_bytes()
    no_pixels = pydicom.dcmread(tmp_path / "good.dcm")
    del no_pixels.PixelData
    no_pixels.save_as(tmp_path / "no_pixels.dcm")
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "text.dcm").write_bytes(b"this is not a scan " * 30)
    (tmp_path / "cut.dcm").write_bytes(good[:-10])
    cases = {
        "absent.dcm": {"missing_file"},
        "empty.dcm": {"empty_file"},
        "text.dcm": {"not_dicom", "no_pixels"},
        "cut.dcm": {"bad_pixels", "no_pixels", "not_dicom"},
        "no_pixels.dcm": {"no_pixels"},
    }
    for name, reasons in cases.items():
        with pytest.raises(SampleError) as caught:
            read_dicom(tmp_path / name)
        assert caught.value.reason in reasons and str(tmp_path / name) in str(caught.value), name
    with pytest.raises(SampleError) as caught:
        read_dicom(tmp_path / "good.dcm", max_pixels=10)
    assert caught.value.reason == "too_large"


def test_every_real_file_opens_or_is_refused_with_a_reason():
    opened, refused = {}, {}
    for path in sorted(shared_path("data/dicom").glob("*.dcm")):
        try:
            opened[path.name] = read_dicom(path)
            assert load_image(path).mode == "RGB"
        except SampleError as error:
            refused[path.name] = error
            assert str(path) in str(error)
    assert len(opened) + len(refused) >= 23 and len(opened) >= 20
    # without pylibjpeg or gdcm these three compressions cannot be read; the message names what to install
    assert set(refused) <= {"JLSN_RGB_ILV0.dcm", "JPEG-LL.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm"}
    assert all(error.reason == "missing_codec" and "radio-vlm[medical]" in str(error) for error in refused.values())
    assert opened["CT_small.dcm"].array.min() == -896 and opened["CT_small.dcm"].modality == "CT"
    assert opened["emri_small.dcm"].num_frames == 10 and opened["emri_small.dcm"].frame == 5
    for name in ("OT-PAL-8-face.dcm", "color-pl.dcm", "US1_J2KR.dcm"):
        assert opened[name].array.shape[-1] == 3
