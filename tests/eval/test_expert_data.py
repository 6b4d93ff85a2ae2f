"""The medical task over data whose header names its experts: arguments, cards on purpose, forms, doubts."""

import json
import re
from unittest.mock import ANY

import numpy as np
import pytest

from eval.backends.base import Batch, Encoded, Reply
from eval.data import text_of
from eval.evaluate import evaluate
from eval.jobs import job_for_data
from eval.report.results_page import write_report
from eval.results import write_json
from eval.results_file import read_several
from eval.run import main
from eval.tasks.base import Options
from tests.helpers.medical_files import new_dataset, save
from tests.helpers.odd_experts import PATIENT
from tests.helpers.scripted_backend import ScriptedBackend
from vlm.experts import Expert, ExpertCard, ExpertResult, protocol

pydicom = pytest.importorskip("pydicom", reason="optional package absent")

HEADER = {"name": "ward", "task": "medical", "split": "test", "experts": ["SHOWS", "SPOTS"]}


class Spots(Expert):
    """Counts: the first pixel is the number. Says whose image it is, as no expert should."""

    card = ExpertCard("SPOTS", "CT", "any", "spots")

    def run(self, path, arguments):
        data = pydicom.dcmread(path)
        return ExpertResult(f"{data.pixel_array[0, 0]} spots in {data.PatientName}, {data.PatientID}, file {path}")


class Shows(Expert):
    """Has weights: a file `level` in its folder."""

    card = ExpertCard("SHOWS", "DX", "chest", "findings", ("effusion", "nodule"))
    weights_name = "shows"

    @classmethod
    def unavailable(cls, folder=None):
        return None if folder and (folder / "level").is_file() else "no weights: level is missing; write it"

    def __init__(self, folder=None):
        self.level = int((folder / "level").read_text())

    def run(self, path, arguments):
        seen = pydicom.dcmread(path).pixel_array[0, 0] >= self.level
        return ExpertResult(f"{arguments[0]}: {'yes' if seen else 'no'}")


class Conversing(ScriptedBackend):
    """Answers from the words of the conversation: `answer(text of all turns, "|" between them)`."""

    def encode(self, messages, sample_id):
        words = "|".join(text_of(message) for message in messages)
        return Encoded(words, len(words))

    def generate(self, batch, decoding):
        return Batch([Reply(text=self.answer(one.data), tokens=1, stopped=True) for one in batch])


def obedient(conversation, doubts=False, tempted=False):
    """Calls what is wanted where it is offered, repeats results; may doubt `9 spots`, or call whatever is offered."""
    if "is not available" in conversation:
        return "unknown"
    if found := re.search(r"\|(\d+) spots", conversation):
        return f"image and result disagree: not {found[1]}" if doubts and found[1] == "9" else found[1]
    if found := re.search(r"\|(effusion|nodule): (yes|no)", conversation):
        return found[2]
    if "How many" in conversation and "<SPOTS()>" in conversation:
        return "<SPOTS()>" if tempted or "MR" not in conversation else "unknown"
    if (found := re.search(r"Any (\w+)\?", conversation)) and "<SHOWS(" in conversation:
        return f"<SHOWS({found[1]})>"
    return "unknown"


def record(name, question, answer, kind, form, expert=None, **meta):
    content = [{"type": "image", "image": f"dicom/{name}.dcm"}, {"type": "text", "text": question}]
    return {
        "id": f"{name}-{kind}", "source": "ward", "messages": [{"role": "user", "content": content}],
        "meta": {
            "task": "medical", "kind": kind, "form": form, "answers": [answer], "group": name, "expert": expert, **meta,
        },
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """3 CT slices (2, 2 and 9 spots), 2 X-rays (with and without effusion), 1 MR slice; all of one planted patient."""
    for expert in (Spots, Shows):
        monkeypatch.setitem(protocol._EXPERTS, expert.card.name, expert)
    data = tmp_path / "data"
    for name, value in {"ct-1": 2, "ct-2": 2, "ct-3": 9, "dx-1": 1, "dx-2": 0, "mr-1": 5}.items():
        path = data / f"dicom/{name}.dcm"
        save(new_dataset(path, np.full((8, 8), value, np.uint16), Modality=name[:2].upper(), **PATIENT), path)
    records = [record(f"ct-{n}", "How many?", str(9 if n == 3 else 2), "number", "expert", "SPOTS") for n in (1, 2, 3)]
    for n, answer in ((1, "yes"), (2, "no")):
        records.append(record(f"dx-{n}", "Any effusion?", answer, "effusion", "expert", "<SHOWS(effusion)>"))
    records += [
        record("ct-1", "Which table?", "unknown", "table", "no_expert"),
        record("mr-1", "How many? It is MR.", "unknown", "number", "wrong_modality", offer=["SPOTS"]),
        record("mr-1", "Which plane?", "unknown", "plane", "no_expert"),
    ]
    (data / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    (data / "dataset.json").write_text(json.dumps(HEADER))
    (tmp_path / "weights/shows").mkdir(parents=True)
    (tmp_path / "weights/shows/level").write_text("1")
    return data


def run(folder, answer=obedient, **options):
    options = Options(expert_weights=str(folder.parent / "weights"), **options)
    return evaluate(Conversing(answer), [job_for_data(folder)], options, progress=False)


def rows_of(results, control=None):
    return {row["id"]: row for row in results["samples"] if row["control"] == control}


def test_figures_of_a_model_that_does_as_it_should(folder):
    results = run(folder)
    figures, rows = results["tasks"]["medical"], rows_of(results)
    rates = ("accuracy", "trigger_precision", "trigger_recall", "trigger_argument_accuracy")
    assert [figures[name] for name in rates] == [1.0] * 4
    assert figures["false_trigger_rate"] == figures["false_trigger_rate_other_modality"] == 0.0
    assert {form: (f["accuracy"], f["n"]) for form, f in figures["forms"].items()} == {
        "expert": (1.0, 5), "no_expert": (1.0, 2), "wrong_modality": (1.0, 1),
    }  # fmt: skip
    assert rows["dx-1-effusion"]["turns"][0]["text"].startswith("Experts:\n<SHOWS(effusion|nodule)> DX: findings\n")
    assert "SPOTS" not in rows["dx-1-effusion"]["turns"][0]["text"]
    assert rows["mr-1-number"]["turns"][0]["text"] == "Experts:\n<SPOTS()> CT: spots\nHow many? It is MR."
    assert rows["mr-1-plane"]["turns"][0]["text"] == "Which plane?"
    assert [rows[f"mr-1-{kind}"]["other_modality"] for kind in ("number", "plane")] == [True, True]
    assert not rows["ct-1-table"]["other_modality"]


def test_a_call_of_what_does_not_fit_is_refused_and_counted(folder):
    results = run(folder, lambda words: obedient(words, tempted=True))
    figures, row = results["tasks"]["medical"], rows_of(results)["mr-1-number"]
    assert row["turns"][2]["text"].startswith("error: SPOTS is not available: it reads CT, the image is MR")
    assert figures["false_trigger_rate"] == round(1 / 3, 4) and figures["false_trigger_rate_other_modality"] == 0.5
    assert figures["trigger_precision"] == round(5 / 6, 4) and figures["trigger_recall"] == 1.0


def test_a_wrong_argument_costs_argument_accuracy_alone(folder):
    results = run(folder, lambda words: obedient(words).replace("(effusion)", "(nodule)"))
    figures = results["tasks"]["medical"]
    assert figures["trigger_precision"] == figures["trigger_recall"] == 1.0
    assert figures["trigger_argument_accuracy"] == 0.6


def test_the_wrong_expert_reads_another_patient_of_the_same_modality(folder):
    results = run(folder)
    wrong, figures = rows_of(results, "expert_wrong"), results["tasks"]["medical"]
    assert {name: row["expert_file"] for name, row in wrong.items()} == {
        "ct-1-number": "dicom/ct-3.dcm", "ct-2-number": "dicom/ct-3.dcm", "ct-3-number": ANY,
        "dx-1-effusion": "dicom/dx-2.dcm", "dx-2-effusion": "dicom/dx-1.dcm",
    }  # fmt: skip
    assert wrong["ct-3-number"]["expert_file"] in ("dicom/ct-1.dcm", "dicom/ct-2.dcm")
    assert wrong["ct-1-number"]["calls"][0]["file"] == "dicom/ct-3.dcm" and wrong["ct-1-number"]["output"] == "9"
    assert figures["controls"] == {"expert_withheld": round(2 / 7, 4), "expert_wrong": 0.0}
    # a card on purpose stands under no control, and questions without a donor not under the wrong expert
    assert figures["control_pairs"]["expert_withheld"] == {"n": 7, "of": 8, "without": 1.0}
    assert figures["control_pairs"]["expert_wrong"]["n"] == 5
    assert rows_of(results)["mr-1-number"]["uncontrolled"] == ["expert_withheld", "expert_wrong"]


def test_doubts_are_counted_apart_from_accuracy(folder):
    figures = run(folder, lambda words: obedient(words, doubts=True))["tasks"]["medical"]
    assert figures["controls"]["expert_wrong"] == 0.0
    assert (figures["disagreement_said"], figures["disagreement_said_as_asked"]) == (0.4, 0.2)
    (folder / "dataset.json").write_text(json.dumps(HEADER | {"disagreement": ["NOT 9"]}))
    assert run(folder, lambda words: obedient(words, doubts=True))["tasks"]["medical"]["disagreement_said"] == 0.4
    (folder / "dataset.json").write_text(json.dumps(HEADER | {"disagreement": ["odd"]}))
    assert run(folder, lambda words: obedient(words, doubts=True))["tasks"]["medical"]["disagreement_said"] == 0.0


def test_without_the_image_nothing_is_offered(folder):
    results = run(folder, blind=True)
    assert all("Experts:" not in row["turns"][0]["text"] for row in results["samples"])


def test_missing_weights_are_told_before_a_model_is_opened(folder, tmp_path, capsys):
    request = ["--model", str(tmp_path / "no-model"), "--data", str(folder), "--out", str(tmp_path / "r.json")]
    assert main(request) == 2
    said = capsys.readouterr().err
    assert "task medical: the expert SHOWS cannot be used here: no weights: level is missing" in said
    assert "--expert-weights" in said and "no-model" not in said
    assert main([*request, "--expert-weights", str(tmp_path / "weights")]) == 2
    assert "no-model" in capsys.readouterr().err  # that was what lacked
    assert main([*request, "--expert-weights", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_results_name_the_experts_and_their_weights(folder):
    before, again = (run(folder)["run"]["tasks"]["medical"]["experts"] for _ in range(2))
    assert before == again and before["SPOTS"] is None and len(before["SHOWS"]) == 16
    (folder.parent / "weights/shows/config.json").write_text("{}")
    assert run(folder)["run"]["tasks"]["medical"]["experts"]["SHOWS"] != before["SHOWS"]


@pytest.mark.parametrize("offer", ["SPOTS", ["ELSEWHERE"], [1]])
def test_a_record_that_offers_what_is_no_expert_is_named_before_a_model_is_asked(folder, offer):
    odd = record("mr-1", "How many?", "unknown", "number", "wrong_modality", offer=offer)
    (folder / "records.jsonl").write_text(json.dumps(odd))
    with pytest.raises(ValueError, match="record mr-1-number: offer must be a list of experts of the data"):
        job_for_data(folder)


def test_a_card_on_purpose_stands_beside_those_that_fit_as_in_training(folder):
    odd = record("ct-1", "Any nodule? It is CT.", "unknown", "nodule", "wrong_modality", offer=["SHOWS"])
    (folder / "records.jsonl").write_text(json.dumps(odd))
    turn = rows_of(run(folder))["ct-1-nodule"]["turns"][0]["text"]
    assert turn == "Experts:\n<SHOWS(effusion|nodule)> DX: findings\n<SPOTS()> CT: spots\nAny nodule? It is CT."


def test_a_header_without_any_expert_offers_none(folder):
    (folder / "dataset.json").write_text(json.dumps(HEADER | {"experts": []}))
    (folder / "records.jsonl").write_text(json.dumps(record("ct-1", "Which table?", "unknown", "table", "vqa")))
    assert rows_of(run(folder))["ct-1-table"]["turns"][0]["text"] == "Which table?"


@pytest.mark.parametrize(
    ("header", "words"), [({"experts": "SPOTS"}, "must be a list"), ({"experts": ["X"]}, "unknown expert X")]
)
def test_headers_that_cannot_be_used(folder, header, words):
    (folder / "dataset.json").write_text(json.dumps(HEADER | header))
    (folder / "records.jsonl").write_text(json.dumps(record("ct-1", "How many?", "2", "number", "expert")))
    with pytest.raises(ValueError, match=words):
        run(folder)


def test_no_identifier_reaches_results_or_report(folder, tmp_path):
    results = run(folder)
    assert "[removed]" in rows_of(results)["ct-1-number"]["calls"][0]["text"]  # it was there to be taken out
    write_json(results, tmp_path / "r.json")
    write_report(read_several([tmp_path / "r.json"]), tmp_path / "r.html", tmp_path / "r.md")
    for file in ("r.json", "r.html", "r.md"):
        text = (tmp_path / file).read_text().lower()
        for value in PATIENT.values():
            for part in re.split(r"[\^ ]", value):
                assert len(part) < 4 or part.lower() not in text, f"{part} in {file}"
    for row in results["samples"]:
        assert all(call["file"].startswith("dicom/") for call in row["calls"] if call["file"])
        assert str(folder) not in json.dumps([row["calls"], row["turns"], row.get("expert_file")])
