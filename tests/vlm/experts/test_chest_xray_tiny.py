"""The embedded X-ray classifier, trained here: right on patients it has not seen, on files, opened from a folder."""

import json
import random
import time

import numpy as np
import pytest

from training.data.synthetic.split_hash import split_of
from training.data.synthetic.xrays import LABELS, random_patient, random_xray, render, write_dicom
from training.experts.chest_xray_tiny import main, train
from vlm.experts import ExpertError, ExpertSession
from vlm.experts.chest_xray_tiny import ChestXrayTiny

pydicom = pytest.importorskip("pydicom", reason="optional package absent: pydicom")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    start = time.process_time()
    return folder, train(folder, seed=0), time.process_time() - start


def test_it_is_right_on_patients_it_has_not_seen(trained):
    _, card, seconds = trained
    assert card["held_out"]["mean"] >= 0.95 and min(card["held_out"][label] for label in LABELS) >= 0.93
    assert seconds < 20


@pytest.mark.parametrize(("modality", "inverted", "size"), [("DX", False, 64), ("CR", True, 256)])
def test_files_are_answered_like_arrays(trained, tmp_path, modality, inverted, size):
    """Through DICOM: both modalities, MONOCHROME1, other sizes; the text says what the probabilities say."""
    expert, rng, right, total = ChestXrayTiny(trained[0]), random.Random(5), 0, 0
    while total < 60:
        patient = random_patient(rng)
        if split_of(patient.content()) != "test":
            continue
        item = random_xray(rng, patient)
        picture = render(item, total, size)
        write_dicom(tmp_path / "a.dcm", 1 - picture if inverted else picture, "t", total, modality)
        if inverted:
            data = pydicom.dcmread(tmp_path / "a.dcm")
            data.PhotometricInterpretation = "MONOCHROME1"
            data.save_as(tmp_path / "a.dcm")
        result = expert.run(tmp_path / "a.dcm", ())
        said = dict(line.split(": ") for line in result.text.split("\n"))
        assert said == {name: "yes" if p > 0.5 else "no" for name, p in result.findings["probabilities"].items()}
        right += sum(said[label] == ("yes" if there else "no") for label, there in item.findings().items())
        total += len(LABELS)
    assert right / total >= 0.95


def test_a_session_offers_it_for_x_rays_and_runs_it(trained, tmp_path):
    item = random_xray(random.Random(2), random_patient(random.Random(2)), dict.fromkeys(LABELS, True))
    write_dicom(tmp_path / "a.dcm", render(item, 0), "t", 0)
    content = [{"type": "image", "image": str(tmp_path / "a.dcm")}, {"type": "text", "text": "Fluid?"}]
    script = iter(["<FINDINGS()>", "yes"])
    session = ExpertSession(["FINDINGS", "LESIONS"], instances={"FINDINGS": ChestXrayTiny(trained[0])})
    transcript = session.run(lambda batch: [next(script)], [{"role": "user", "content": content}])
    assert transcript.offered == ["FINDINGS"] and transcript.calls[0].ok
    assert transcript.calls[0].text == "cardiomegaly: yes\neffusion: yes\nnodule: yes"


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_session_is_told_where_the_weights_lie(trained, tmp_path, isolation, monkeypatch):
    """And can be asked for one finding; another folder's weights are not found."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / ChestXrayTiny.weights_name).symlink_to(trained[0])
    item = random_xray(random.Random(2), random_patient(random.Random(2)), dict.fromkeys(LABELS, True))
    write_dicom(tmp_path / "a.dcm", render(item, 0), "t", 0)
    content = [{"type": "image", "image": str(tmp_path / "a.dcm")}, {"type": "text", "text": "Fluid?"}]
    script = iter(["<FINDINGS(effusion)>", "<FINDINGS(fracture)>", "yes"])
    with ExpertSession(weights=tmp_path, isolation=isolation) as session:
        assert "FINDINGS" in session.cards and "FINDINGS" not in ExpertSession().cards
        transcript = session.run(lambda batch: [next(script)], [{"role": "user", "content": content}])
    asked, unknown = transcript.calls
    assert asked.ok and asked.text == "effusion: yes" and list(asked.result.findings["probabilities"]) == ["effusion"]
    assert not unknown.ok and "unknown argument fracture; FINDINGS takes cardiomegaly, effusion" in unknown.text


def test_arguments_choose_the_findings(trained, tmp_path):
    item = random_xray(random.Random(2), random_patient(random.Random(2)), dict.fromkeys(LABELS, True))
    write_dicom(tmp_path / "a.dcm", render(item, 0), "t", 0)
    expert = ChestXrayTiny(trained[0])
    everything = expert.run(tmp_path / "a.dcm", ()).findings["probabilities"]
    two = expert.run(tmp_path / "a.dcm", ("nodule", "cardiomegaly"))
    assert two.text == "cardiomegaly: yes\nnodule: yes", "in the fixed order"
    assert two.findings["probabilities"] == {name: everything[name] for name in ("cardiomegaly", "nodule")}
    with pytest.raises(ExpertError, match="unknown argument fracture"):
        expert.check(("fracture",))


def test_the_folder_says_what_it_is(trained, tmp_path):
    card = json.loads((trained[0] / "card.json").read_text())
    assert card["labels"] == list(LABELS) and "synthetic" in card["data"] and "not for clinical use" in card["notice"]
    (tmp_path / "model.safetensors").write_bytes((trained[0] / "model.safetensors").read_bytes())
    (tmp_path / "card.json").write_text(json.dumps(card | {"format_version": 99}))
    with pytest.raises(ExpertError, match="train the expert anew"):
        ChestXrayTiny(tmp_path)
    (tmp_path / "card.json").unlink()
    with pytest.raises(ExpertError, match="python -m training.experts.chest_xray_tiny --out"):
        ChestXrayTiny(tmp_path)


def test_training_is_repeatable_and_has_a_command(tmp_path, monkeypatch):
    cards = [train(tmp_path / name, seed=3, patients=8, epochs=1, test_patients=2) for name in ("a", "b")]
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    assert cards[0]["held_out"] == cards[1]["held_out"]
    monkeypatch.setattr("training.experts.chest_xray_tiny.train", lambda out, seed: (out / "x").write_text(str(seed)))
    assert main(["--out", str(tmp_path), "--seed", "4"]) == 0 and (tmp_path / "x").read_text() == "4"


def test_findings_are_visible():
    """Each finding changes the picture where it should and nowhere else."""
    patient = random_patient(random.Random(0))
    nothing = dict.fromkeys(LABELS, False)
    plain = render(random_xray(random.Random(1), patient, nothing), 0, noise=0)
    for label in LABELS:
        item = random_xray(random.Random(1), patient, nothing | {label: True})
        assert item.findings() == nothing | {label: True}
        scale = random_xray(random.Random(1), patient, nothing).exposure / item.exposure
        changed = np.abs(render(item, 0, noise=0) * scale - plain) > 0.08
        rows, columns = np.nonzero(changed)
        assert 3 < changed.sum() < 700
        place = {"cardiomegaly": rows.mean() > 32, "effusion": rows.min() > 28, "nodule": rows.max() < 40}[label]
        assert place, label
