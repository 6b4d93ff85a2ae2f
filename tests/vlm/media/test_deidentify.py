"""Words about a patient are planted in files and looked for in all that comes out: values, logs, prompts, errors."""

import logging
import pickle
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.medical_files import body, new_dataset, save, write_enhanced, write_nifti, write_series
from tests.helpers.mutations import mutate
from tests.helpers.tiny_processor import tiny_processor
from vlm.errors import SampleError
from vlm.media import load_image, read_channels, read_volume
from vlm.media.deidentify import ALLOWED, safe_header
from vlm.media.dicom import read_dicom
from vlm.media.dicom_series import list_series
from vlm.prompt_volumes import expand_volumes

pydicom = pytest.importorskip("pydicom", reason="optional package absent: pydicom")
SECRET = "ZZPLANTED"
TEXTS = {
    "PatientName": f"{SECRET}^JOHN", "PatientID": f"{SECRET}1", "PatientBirthDate": "19391231", "PatientAge": "083Y",
    "AccessionNumber": f"{SECRET}2", "PatientComments": f"{SECRET}3", "ImageComments": f"{SECRET}4",
    "OtherPatientIDs": f"{SECRET}5", "PatientAddress": f"{SECRET}6", "InstitutionName": f"{SECRET}7",
    "ReferringPhysicianName": f"{SECRET}8", "OperatorsName": f"{SECRET}9", "StudyDescription": f"{SECRET}10",
    "SeriesDescription": f"T1 {SECRET}11", "ProtocolName": f"{SECRET}12", "StudyID": f"{SECRET}13",
    "StationName": f"{SECRET}14", "DeviceSerialNumber": f"{SECRET}15", "StudyDate": "19391230",
    "BodyPartExamined": f"{SECRET}16", "ViewPosition": f"{SECRET}17", "Laterality": f"{SECRET}18",
    "SeriesInstanceUID": "1.2.19391229", "WindowCenterWidthExplanation": f"{SECRET}19", "ImageType": f"{SECRET}20",
    "VOILUTFunction": f"{SECRET}21", "ContrastBolusAgent": f"{SECRET}22", "StudyInstanceUID": "1.2.193912281",
}  # fmt: skip
PLANTED = (SECRET, "1939", "083Y")


def plant(data, **tags):
    for name, value in {**TEXTS, **tags}.items():
        setattr(data, name, value)
    data.private_block(0x0011, f"{SECRET} 23", create=True).add_new(1, "LO", f"{SECRET}24")
    return data


def clean(*things) -> None:
    """None of the planted words is in any of these, looked at as text and as pickled bytes."""
    for thing in things:
        shown = repr(thing) + str(thing)
        stored = pickle.dumps(thing)
        for word in PLANTED:
            assert word not in shown and word.encode() not in stored, f"{word} left: {shown[:300]}"


@pytest.fixture
def heard(caplog, monkeypatch):
    """All that is logged or warned, at every level, also by the reading libraries."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.WARN)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield lambda: caplog.text + "".join(str(found.message) for found in caught)


def write(path: Path, pixels=None, **tags) -> Path:
    data = new_dataset(path, body((8, 8, 1))[..., 0] if pixels is None else pixels)
    return save(plant(data, **tags), path)


def test_planted_words_do_not_leave_an_image(tmp_path: Path, heard):
    path = write(tmp_path / "x.dcm", BurnedInAnnotation="YES")
    assert SECRET.encode() in path.read_bytes()
    scan = read_dicom(path)
    clean(scan, scan.header, scan.warnings, heard(), load_image(path).info)
    assert set(scan.header) <= set(ALLOWED) and scan.header == {
        "Modality": "CT", "PhotometricInterpretation": "MONOCHROME2", "BurnedInAnnotation": "YES",
    }  # fmt: skip


def test_the_search_finds_what_leaks():
    with pytest.raises(AssertionError):
        clean({"name": f"x{SECRET}"})
    with pytest.raises(AssertionError):
        clean(SampleError("born 19391231"))


def test_headers_leave_by_the_list_alone():
    data = plant(
        new_dataset(Path("x"), body((4, 4, 1))[..., 0]), Modality=f"{SECRET}", PhotometricInterpretation=SECRET
    )
    assert safe_header(data) == {}


def test_planted_words_do_not_leave_series_channels_or_prompts(tmp_path: Path, heard):
    for folder, words in (("one", "T1"), ("two", "FLAIR")):
        seed = len(words)
        for path in write_series(tmp_path / folder, body(seed=seed)):
            data = plant(pydicom.dcmread(path))
            data.Modality, data.SeriesDescription, data.SeriesInstanceUID = (
                "MR",
                f"{words} {SECRET}",
                f"1.2.{seed}.1939",
            )
            data.ContrastBolusAgent = ""
            save(data, path)
    found, skipped = list_series(tmp_path)
    channels = read_channels(tmp_path, ("t1", "flair"))
    messages = expand_volumes([{"role": "user", "content": [{"type": "volume", "volume": str(tmp_path / "one")}]}])
    clean([one.words() for one in found], skipped, channels, messages, heard())
    assert [one.sequence for one in found] == ["t1", "flair"]
    processor = tiny_processor()
    text = processor.tokenizer.decode(processor.encode(messages, add_generation_prompt=True)["input_ids"])
    assert "MRI (t1) volume of 5 axial slices" in text
    clean(text)


def bad_files(folder: Path) -> dict[str, Path]:
    """Broken in many ways, each with planted words near the break."""
    good = write(folder / "good").read_bytes()
    report = plant(new_dataset(folder / "sr", body((4, 4, 1))[..., 0], "1.2.840.10008.5.1.4.1.1.88.11"))
    files = {
        "cut": good[:-40],
        "header": good[: len(good) // 2],
        "length": good.replace(b"\x10\x00\x10\x00PN", b"\x10\x00\x10\x00UL", 1),
        "rows": good.replace(b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00PN", 1),
        "number": good.replace(b"\x28\x00\x00\x01US", b"\x28\x00\x00\x01LO", 1),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    paths = {name: folder / name for name in files} | {"sr": save(report, folder / "sr")}
    odd = {
        "slope": {"RescaleSlope": "0", "RescaleIntercept": "1"},
        "colour": {"PhotometricInterpretation": SECRET},
        "frames": {"NumberOfFrames": "7"},
    }
    for name, tags in odd.items():
        paths[name] = write(folder / name, **tags)
    raw = (folder / "slope").read_bytes()
    place = raw.index(b"\x28\x00\x53\x10DS")
    (folder / "slope").write_bytes(raw[: place + 8] + b"Z9" + raw[place + 10 :])
    return paths


def test_planted_words_do_not_leave_in_errors(tmp_path: Path, heard):
    refused = 0
    for name, path in bad_files(tmp_path).items():
        for reader in (read_dicom, load_image, read_volume, lambda path: list_series([path])):
            try:
                clean(reader(path))
            except SampleError as error:
                refused += 1
                clean(error, "".join(traceback.format_exception(error)), error.args)
            except Exception as error:  # noqa: BLE001
                pytest.fail(f"{name}: {type(error).__name__} {error}")
    assert refused >= 12
    clean(heard())


def test_planted_words_do_not_leave_damaged_files(tmp_path: Path, heard):
    data = write(tmp_path / "x").read_bytes()
    results = [0, 0]
    for seed in range(120):
        path = tmp_path / f"y{seed}"
        path.write_bytes(mutate(data, seed)[1])
        try:
            scan = read_dicom(path)
            clean(scan.header, scan.warnings, scan.modality)
            results[0] += 1
        except SampleError as error:
            clean(error, "".join(traceback.format_exception(error)))
            results[1] += 1
    assert min(results) > 20, results
    clean(heard())


def test_nifti_descriptions_do_not_leave(tmp_path: Path, heard):
    nibabel = pytest.importorskip("nibabel", reason="optional package absent: nibabel")
    path = write_nifti(tmp_path / "x.nii", body())
    image = nibabel.load(path)
    image.header["descrip"], image.header["db_name"], image.header["intent_name"] = SECRET, SECRET, SECRET
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", SECRET.encode()))
    image.to_filename(tmp_path / "y.nii")
    assert SECRET.encode() in (tmp_path / "y.nii").read_bytes()
    clean(read_volume(tmp_path / "y.nii", "MR"), heard())
    raw = (tmp_path / "y.nii").read_bytes()
    (tmp_path / "z.nii").write_bytes(raw[:-3])
    with pytest.raises(SampleError) as caught:
        read_volume(tmp_path / "z.nii", "MR")
    clean(caught.value, "".join(traceback.format_exception(caught.value)))


def test_multiframe(tmp_path: Path, heard):
    path = write_enhanced(tmp_path / "x.dcm", body())
    data = plant(pydicom.dcmread(path))
    save(data, path)
    clean(read_volume(path), heard())
    assert np.array_equal(read_volume(path).array, body())
