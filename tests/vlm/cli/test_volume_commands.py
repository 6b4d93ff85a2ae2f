"""`radio-vlm tokens` and `radio-vlm check-data` on volumes."""

import json
import shutil

import pytest

from tests.helpers.data_folders import record, write_records
from tests.helpers.medical_files import body, write_nifti, write_series
from tests.helpers.tiny_processor import tiny_processor
from vlm.cli import loading
from vlm.cli.main import build_parser, main
from vlm.cli.token_inputs import Sampling, read_input
from vlm.cli.tokens import run as run_tokens
from vlm.errors import RadioVLMError, SampleError

pytest.importorskip("pydicom", reason="optional package absent: pydicom")
pytest.importorskip("nibabel", reason="optional package absent: nibabel")


@pytest.fixture
def scans(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load_processor", lambda name: tiny_processor())
    write_series(tmp_path / "d/ct", body((32, 32, 6)))
    write_nifti(tmp_path / "d/mr.nii.gz", body((32, 32, 6)))
    return tmp_path / "d"


def tokens(tmp_path, *words):
    code = run_tokens(build_parser().parse_args(["tokens", *map(str, words), "--json", str(tmp_path / "t.json")]))
    return code, json.loads((tmp_path / "t.json").read_text())["files"]


def test_tokens_of_volumes_come_from_their_headers(scans, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vlm.media.dicom_series.decode_frame", None)  # no pixel is read
    code, files = tokens(tmp_path, scans / "ct", scans / "mr.nii.gz", "--slices", 3)
    assert code == 0 and [one["kind"] for one in files] == ["volume", "volume"]
    assert files[0]["sizes_hw"] == files[1]["sizes_hw"] == [[48, 32]] * 3
    assert "volume of 6 slices, 3 shown at 32×48" in capsys.readouterr().out
    assert len(read_input(scans / "ct", Sampling()).sizes) == 6, "no more than there are"
    with pytest.raises(RadioVLMError, match="--slices 0"):
        tokens(tmp_path, scans / "ct", "--slices", 0)
    (scans / "empty").mkdir()
    with pytest.raises(SampleError, match="holds no DICOM images"):
        read_input(scans / "empty", Sampling())


def test_tokens_with_a_model_are_those_of_the_prompt(scans, tmp_path, capsys):
    words = (scans / "ct", scans / "mr.nii.gz", "--model", "m", "--slices", 2)
    code, files = tokens(tmp_path, *words)
    assert code == 2 and "mr.nii.gz: the file does not say its modality" in capsys.readouterr().err
    code, files = tokens(tmp_path, scans / "mr.nii.gz", *words[2:], "--modality", "MR")
    (row,) = files[0]["geometries"].values()
    (cost,) = row["projectors"].values()
    assert code == 0 and files[0]["encoded"]["visual_tokens"] == cost["tokens"] > 0


def test_the_page_shows_slices_and_copies(scans, tmp_path, capsys):
    def asked(name, **item):
        one = record(name)
        one["messages"][0]["content"].insert(0, {"type": "volume", **item})
        return one

    test = tmp_path / "test"
    shutil.copytree(scans / "ct", test / "copy")
    write_records(scans, [asked("ct", volume="ct", slices=3), asked("mr", volume="mr.nii.gz", modality="MR", slices=1)])
    write_records(test, [asked("seen", volume="copy")])
    words = [str(scans), "--against", str(test), "--model", "m", "--html", str(tmp_path / "page.html")]
    assert main(["check-data", *words]) == 1
    page, told = (tmp_path / "page.html").read_text(), capsys.readouterr().out
    assert "in_training" in told and "volumes" in told and "0 images" not in page and "3 volumes" in page
    assert page.count("<img") == 3 + 1 + 2, "the slices of the good samples, and the pair"
