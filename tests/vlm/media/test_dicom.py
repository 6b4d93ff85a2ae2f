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


NO_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.88.11": "structured report",
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
    "1.2.840.10008.5.1.4.1.1.11.1": "presentation state",
    "1.2.840.10008.5.1.4.1.1.481.3": "structure set",
    "1.2.840.10008.5.1.4.1.1.104.1": "encapsulated PDF",
    "1.2.840.10008.5.1.4.1.1.9.1.1": "waveform",
}


@pytest.mark.parametrize("uid", NO_IMAGES)
def test_objects_that_are_no_images_are_refused_by_what_they_are(tmp_path: Path, uid: str):
    with_pixels = write(tmp_path / "x.dcm", RAMP, SOPClassUID=uid)
    with pytest.raises(SampleError, match=NO_IMAGES[uid]) as caught:
        read_dicom(with_pixels)
    assert caught.value.reason == "not_an_image"
    by_modality = write(tmp_path / "y.dcm", RAMP, Modality="SR")
    with pytest.raises(SampleError, match="structured report"):
        load_image(by_modality)


def test_screenshots_and_burned_in_text_are_said(tmp_path: Path, caplog):
    plain = write(tmp_path / "x.dcm", RAMP)
    assert read_dicom(plain).warnings == () and caplog.text == ""
    shot = read_dicom(write(tmp_path / "y.dcm", RAMP, SOPClassUID="1.2.840.10008.5.1.4.1.1.7"))
    assert "secondary capture" in shot.warnings[0]
    burned = read_dicom(write(tmp_path / "z.dcm", RAMP, BurnedInAnnotation="YES"))
    assert "burned into the pixels" in burned.warnings[0] and "burned into the pixels" in caplog.text


def test_rescale_of_no_use_and_unknown_colours(tmp_path: Path):
    with pytest.raises(SampleError, match="rescale slope"):
        read_dicom(write(tmp_path / "x.dcm", RAMP, RescaleSlope=0))
    with pytest.raises(SampleError, match="photometric") as caught:
        read_dicom(write(tmp_path / "y.dcm", RAMP, PhotometricInterpretation="DOE JOHN"))
    assert "DOE" not in str(caught.value)


def test_palette_and_ybr_become_rgb(tmp_path: Path):
    index = np.arange(16, dtype=np.uint8).reshape(4, 4)
    path = write(tmp_path / "x.dcm", index, PhotometricInterpretation="PALETTE COLOR")
    data = pydicom.dcmread(path)
    tables = {"Red": np.arange(16) * 16, "Green": np.arange(16)[::-1] * 16, "Blue": np.full(16, 99)}
    for place, table in enumerate(tables.values()):
        data.add_new((0x0028, 0x1101 + place), "US", [16, 0, 8])
        data.add_new((0x0028, 0x1201 + place), "OW", table.astype(np.uint8).tobytes())
    data.save_as(path)
    shown = np.asarray(read_dicom(path).image)
    assert np.array_equal(shown, np.stack([table[index] for table in tables.values()], -1))
    ybr = np.full((4, 6, 3), (76, 85, 255), np.uint8)  # red
    found = read_dicom(write(tmp_path / "y.dcm", ybr, PhotometricInterpretation="YBR_FULL"))
    red, green, blue = found.array[0, 0].astype(int)
    assert red > 250 and green < 5 and blue < 5


def test_a_compressed_picture_of_another_size_is_not_decoded(tmp_path: Path):
    """A damaged stream that claims 60,000 x 60,000 pixels must not make the decoder reserve them."""
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    from vlm.media.codestream import codestream_size

    siz = (
        b"\xff\x4f\xff\x51"
        + (47).to_bytes(2, "big")
        + bytes(2)
        + b"".join(n.to_bytes(4, "big") for n in (60_000, 60_000, 0, 0, 60_000, 60_000, 0, 0))
    )
    stream = siz + (1).to_bytes(2, "big") + bytes(60)
    assert codestream_size(stream) == (60_000, 60_000, 1)
    data = pydicom.dcmread(write(tmp_path / "x.dcm", RAMP))
    data.PixelData = encapsulate([stream])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.save_as(tmp_path / "x.dcm")
    with pytest.raises(SampleError, match="says 60000 x 60000 pixels, the header 4 x 4") as caught:
        read_dicom(tmp_path / "x.dcm")
    assert caught.value.reason == "bad_pixels"


def test_sizes_of_compressed_streams():
    from io import BytesIO

    from PIL import Image

    from vlm.media.codestream import codestream_size

    for kind in ("JPEG", "JPEG2000"):
        file = BytesIO()
        Image.new("RGB", (30, 20)).save(file, kind)
        assert codestream_size(file.getvalue()) == (20, 30, 3)
        assert codestream_size(file.getvalue()[:6]) is None
    assert codestream_size(b"") is None and codestream_size(b"\xff\xd8" + b"\xff" * 50) is None


def test_deflated_bombs_are_refused(tmp_path: Path, monkeypatch):
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    path = write(tmp_path / "x.dcm", np.zeros((300, 300), np.int16))
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(path)
    assert read_dicom(path).array.shape == (300, 300)
    monkeypatch.setattr("vlm.media.dicom_file.MAX_FILE_BYTES", 2**20)
    with pytest.raises(SampleError, match="unpacks to more than") as caught:
        read_dicom(path)
    assert caught.value.reason == "too_large"


def test_every_real_file_opens_as_its_label_says_or_is_refused_with_a_reason():
    import json

    folder = shared_path("data/dicom")
    opened, refused = {}, {}
    for path in sorted(folder.glob("*.dcm")):
        try:
            opened[path.name] = read_dicom(path)
            assert load_image(path).mode == "RGB"
        except SampleError as error:
            refused[path.name] = error
            assert str(path) in str(error)
    assert len(opened) + len(refused) >= 23 and len(opened) >= 19
    # without pylibjpeg-libjpeg or gdcm these three compressions cannot be read; the message names what to install
    codec = {name for name, error in refused.items() if error.reason == "missing_codec"}
    assert codec <= {"JLSN_RGB_ILV0.dcm", "JPEG-LL.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm"}
    assert all("radio-vlm[medical]" in str(refused[name]) for name in codec)
    assert set(refused) - codec == {"liver.dcm"} and "segmentation" in str(refused["liver.dcm"])
    for line in (folder / "labels.jsonl").read_text().splitlines():
        label = json.loads(line)
        if (scan := opened.get(label["image"])) is None:
            continue
        assert scan.modality in label["answers"] and scan.num_frames == label["frames"]
        assert scan.array.shape[:2] == (label["rows"], label["columns"])
        assert scan.header["PhotometricInterpretation"] == label["photometric"]
        assert scan.header.get("BodyPartExamined", "") == label["body_part"].replace(" ", "")
    assert opened["CT_small.dcm"].array.min() == -896 and opened["CT_small.dcm"].modality == "CT"
    assert opened["emri_small.dcm"].num_frames == 10 and opened["emri_small.dcm"].frame == 5
    assert opened["vlut_04.dcm"].window is None, "shown through its VOI LUT"
    for name in ("OT-PAL-8-face.dcm", "color-pl.dcm", "US1_J2KR.dcm"):
        assert opened[name].array.shape[-1] == 3
