"""The medical task over real synthetic slices and the real expert, with a scripted model in place of the VLM."""

import re

import pytest

from eval.backends.radio import RadioBackend
from eval.evaluate import evaluate
from eval.jobs import job_for_data
from eval.tasks.base import Options
from tests.helpers.fake_vlm import FakeModel, FakeProcessor
from training.data.synthetic.medical import write

pytest.importorskip("pydicom", reason="optional package absent")
pytest.importorskip("scipy", reason="optional package absent")


class BlindProcessor(FakeProcessor):
    """Leaves the DICOM files closed: the scripted model answers from the words alone."""

    def encode(self, messages, **kwargs):
        only_text = [{**m, "content": [i for i in m["content"] if i["type"] == "text"]} for m in messages]
        return super().encode(only_text, **kwargs)


def scripted(picture, text):
    """Calls the expert when a lesion is asked about and it is offered; then reads the answer from its report."""
    turns = text.strip("|").split("|")
    question = re.search(r"(\w+)\?$", turns[-1])[1]
    found = re.match(r"(\d+) lesions?(?:; largest: (\w+), (\d+) mm)?", turns[-1])
    if found:
        return {"Number": found[1], "Side": found[2], "Size": found[3]}[question] or "none"
    if question in ("Side", "Size", "Number"):
        return "<LESIONS()>" if "Experts:" in text else "unknown"
    return "CT"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("medical")
    write(folder, "test", 1, 48)
    backend = RadioBackend(FakeModel(scripted), BlindProcessor())
    return evaluate(backend, [job_for_data(folder)], Options(seed=1), progress=False)


def test_figures(results):
    figures = results["tasks"]["medical"]
    assert figures["n"] == 48
    assert figures["trigger_precision"] == figures["trigger_recall"] == 1.0
    assert figures["trigger_argument_accuracy"] == 1.0 and figures["false_trigger_rate"] == 0.0
    assert figures["false_trigger_rate_other_modality"] is None and "forms" not in figures  # all are CT slices
    assert figures["disagreement_said"] == figures["disagreement_said_as_asked"] == 0.0
    for kind in ("side", "size", "number"):
        of_kind = figures["kinds"][kind]
        assert of_kind["accuracy"] >= 0.9 and of_kind["expert_withheld"] == 0.0 and of_kind["expert_wrong"] <= 0.1
    assert figures["controls"]["expert_withheld"] < figures["accuracy"] > figures["controls"]["expert_wrong"]


def test_rows_hold_the_conversation(results):
    rows = {row["control"]: row for row in results["samples"] if row["kind"] == "side"}
    asked = rows[None]
    assert (asked["wanted_expert"], asked["called_expert"]) == ("LESIONS", "LESIONS")
    assert [turn["role"] for turn in asked["turns"]] == ["user", "assistant", "user", "assistant"]
    assert asked["calls"][0]["ok"] and asked["media"][0].endswith("/" + asked["calls"][0]["file"])
    assert rows["expert_wrong"]["calls"][0]["file"] == rows["expert_wrong"]["expert_file"] != asked["calls"][0]["file"]
    assert rows["expert_withheld"]["calls"] == [] and "Experts:" not in rows["expert_withheld"]["turns"][0]["text"]
