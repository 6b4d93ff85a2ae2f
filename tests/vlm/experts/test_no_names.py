"""Values of a header and paths of files are planted where experts read, and looked for where experts speak and log."""

import json
import logging
import warnings

import numpy as np
import pytest

from tests.helpers.medical_files import body, new_dataset, save, write_nifti, write_series
from vlm.experts import ExpertError, ExpertSession, get_expert
from vlm.experts.call_log import ExpertCall
from vlm.experts.image_facts import file_digest, image_facts
from vlm.experts.volumes import read_volume

pytest.importorskip("pydicom", reason="optional package absent: pydicom")
pytest.importorskip("nibabel", reason="optional package absent: nibabel")
SECRET = "ZEBROWSKI"


def planted(path, **tags):
    """A slice whose header names a patient, also in fields that must hold codes."""
    pixels = np.full((16, 16), 40, np.int16)
    plain = {"PatientName": SECRET, "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return save(new_dataset(path, pixels, **(plain | {"ImagePositionPatient": [0, 0, 0]} | tags)), path)


def chain(error: BaseException | None) -> str:
    """The words of an error and of everything that a traceback would print with it."""
    words = []
    while error is not None:
        words.append(repr(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return " ".join(words)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / SECRET.lower()
    planted(folder / "modality.dcm", Modality=SECRET)
    planted(folder / "photometric.dcm", PhotometricInterpretation=SECRET)
    cut = planted(folder / "cut.dcm")
    cut.write_bytes(cut.read_bytes()[:-200])
    text = planted(folder / "text.dcm")
    text.write_bytes(text.read_bytes().replace(b"1\\1 ", b"ZEBR"))
    (folder / "noise.dcm").write_bytes(bytes(128) + b"DICM" + SECRET.encode() * 20)
    return folder


@pytest.mark.parametrize("name", ["modality", "photometric", "cut", "noise", "absent"])
def test_the_lesion_expert_quotes_no_header_and_no_path(folder, name, caplog, recwarn):
    with caplog.at_level(logging.DEBUG), pytest.raises(ExpertError) as caught:
        get_expert("LESIONS")().run(folder / f"{name}.dcm", ())
    told = " ".join([chain(caught.value), caplog.text, *(str(one.message) for one in recwarn)])
    assert SECRET.lower() not in told.lower() and str(folder.parent) not in told
    assert ("of no stated modality" if name == "modality" else "cannot read the image") in told


def test_facts_and_volumes_quote_nothing_either(folder, caplog, recwarn, tmp_path):
    with caplog.at_level(logging.DEBUG):
        facts = image_facts(folder / "modality.dcm")
        assert facts.modality is None and facts.kind == "of no stated modality" and SECRET in facts.identifiers
        for name in ("photometric", "cut", "noise"):
            image_facts(folder / f"{name}.dcm")
        write_series(folder / "mixed", body(), SeriesInstanceUID=f"1.2.{1}", PatientName=SECRET)
        planted(folder / "mixed/other", SeriesInstanceUID="1.3", SeriesDescription=SECRET)
        damaged = write_nifti(folder / "a.nii", body())
        damaged.write_bytes(damaged.read_bytes()[:400])
        told = []
        for path in (folder / "mixed", folder, damaged, folder / "cut.dcm", folder / "gone.nii"):
            with pytest.raises(ExpertError) as caught:
                read_volume(path)
            told.append(chain(caught.value))
    everything = " ".join([*told, caplog.text, *(str(one.message) for one in recwarn)])
    assert SECRET.lower() not in everything.lower() and str(tmp_path) not in everything


def test_the_libraries_speak_again_afterwards(folder, caplog):
    image_facts(folder / "modality.dcm")
    with caplog.at_level(logging.INFO):
        logging.getLogger("pydicom").warning("something else")
    assert "something else" in caplog.text


def test_a_call_as_json_names_the_file_by_its_digest(folder):
    path = folder / "cut.dcm"
    call = ExpertCall("<A()>", "A", (), str(path), False, "error: no", 0.1)
    row = call.as_json()
    assert row["file"] == file_digest(path) and SECRET.lower() not in json.dumps(row).lower()
    assert SECRET.lower() not in repr(call).lower() and call.file == str(path), "programs still know it"
    assert ExpertCall("<A()>", "A", (), None, False, "", 0.1).as_json()["file"] is None


def test_a_conversation_and_its_log_name_nobody(folder, tmp_path, caplog):
    content = [{"type": "image", "image": str(folder / "cut.dcm")}, {"type": "text", "text": "Lesions?"}]
    script = iter(["<LESIONS()>", "none"])
    with caplog.at_level(logging.DEBUG), ExpertSession(["LESIONS"], log=tmp_path / "log.jsonl") as session:
        transcript = session.run(lambda batch: [next(script)], [{"role": "user", "content": content}])
    (call,) = transcript.calls
    assert not call.ok and call.text.startswith("error: cannot read the image")
    told = [caplog.text, (tmp_path / "log.jsonl").read_text(), json.dumps(call.as_json()), call.text]
    assert SECRET.lower() not in " ".join(told).lower()
