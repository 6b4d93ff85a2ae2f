"""Chest X-ray questions with an expert: who is offered, what its report is worth, and what a wrong one does."""

import re

import pytest

from eval.backends.base import Batch, Reply
from eval.data import text_of
from eval.evaluate import evaluate
from eval.jobs import Job, job_for_task
from eval.sources import DataPlaces
from eval.tasks.base import Options
from eval.tasks.chest_xray_expert import ChestXrayExpert
from tests.helpers.benchmark_runs import mini_job
from tests.helpers.mini_benchmarks import picture_of
from tests.helpers.scripted_backend import ScriptedBackend
from tests.helpers.xray_expert import XrayExpert
from vlm.experts import protocol
from vlm.experts.image_facts import file_digest

FINDINGS = {1: "cardiomegaly", 2: "cardiomegaly, pleural thickening"}


class Conversing(ScriptedBackend):
    """Answers from the words of the conversation: `answer(text of all turns, "|" between them)`."""

    def encode(self, messages, sample_id):
        encoded = super().encode(messages, sample_id)
        encoded.data = "|".join(text_of(message) for message in messages)
        return encoded

    def generate(self, batch, decoding):
        return Batch([Reply(text=self.answer(one.data), tokens=1, stopped=True) for one in batch])


def obedient(conversation):
    """Calls the expert that is offered and repeats what it says; without one it says no."""
    finding = re.search(r"show (.*?)\?", conversation)[1]
    if report := re.search(r"\|findings: (.*?)\n", conversation):
        return "yes" if finding in report[1] else "no"
    return "I will ask. <XRAY()>" if "<XRAY()>" in conversation else "no"


def run(tmp_path, answer, **options):
    dataset = mini_job("chest_xray", tmp_path).dataset
    task = ChestXrayExpert(dataset, instances={"XRAY": XrayExpert(FINDINGS)})
    return evaluate(Conversing(answer), [Job(task, dataset)], Options(**options), batch_size=8, progress=False)


def test_the_expert_decides(tmp_path):
    results = run(tmp_path, obedient, controls=True)
    figures = results["tasks"]["chest_xray_expert"]
    assert (figures["f1_macro"], figures["accuracy"], figures["invalid_rate"], figures["n"]) == (1.0, 1.0, 0.0, 42)
    assert figures["trigger_precision"] == figures["trigger_recall"] == 1.0
    assert figures["controls"] == {"expert_withheld": 0.0, "expert_wrong": 0.0}
    assert figures["kinds"]["Cardiomegaly"]["expert_wrong"] == 0.0
    rows = {row["control"]: row for row in results["samples"] if row["id"] == "00000001_000-Cardiomegaly"}
    asked, wrong, withheld = rows[None], rows["expert_wrong"], rows["expert_withheld"]
    assert [turn["role"] for turn in asked["turns"]] == ["user", "assistant", "user", "assistant"]
    assert asked["turns"][0]["text"] == (
        "Experts:\n<XRAY()> DX: findings\nDoes this chest X-ray show cardiomegaly?\nAnswer yes or no."
    )
    assert asked["turns"][2]["text"].startswith("findings: cardiomegaly\nDoes this chest X-ray show cardiomegaly?")
    assert asked["wanted_expert"] == asked["called_expert"] == "XRAY" and asked["output"] == "yes"
    # the wrong expert reads another patient's picture, of which the answer is the other one
    assert wrong["calls"][0]["file"] == file_digest(wrong["expert_file"])
    assert picture_of(wrong["expert_file"]) == 3 and wrong["output"] == "no" and wrong["media"] == asked["media"]
    assert withheld["calls"] == [] and "Experts:" not in withheld["turns"][0]["text"]


def test_an_expert_that_cannot_be_wrong_is_named(tmp_path):
    """One question has nobody whose result could stand in for its own."""
    results = run(tmp_path, obedient, controls=True, limit=1)
    figures = results["tasks"]["chest_xray_expert"]
    assert "expert_withheld" in figures["controls"] and "expert_wrong" not in figures["controls"]
    assert figures["control_pairs"] == {"expert_wrong": {"n": 0, "of": 1, "without": None}}


def test_a_model_that_never_calls(tmp_path):
    figures = run(tmp_path, lambda _: "no")["tasks"]["chest_xray_expert"]
    assert figures["trigger_precision"] == figures["trigger_recall"] == figures["f1_macro"] == 0.0
    assert figures["invalid_rate"] == 0.0 and figures["controls"] == {}


def test_a_wrong_name_is_a_wrong_call(tmp_path):
    figures = run(tmp_path, lambda _: "<LESIONS()>")["tasks"]["chest_xray_expert"]
    assert figures["trigger_precision"] == figures["trigger_recall"] == 0.0 and figures["invalid_rate"] == 1.0


def test_no_expert_for_x_rays_is_an_error(tmp_path, monkeypatch):
    mini_job("chest_xray", tmp_path)
    monkeypatch.delitem(protocol._EXPERTS, "XRAY")
    with pytest.raises(ValueError, match=r"no expert reads chest X-rays \(modality DX or CR\); known: LESIONS \(CT\)"):
        job_for_task("chest_xray_expert", DataPlaces(tmp_path, tmp_path / "cache"))


def test_experts_of_other_modalities_are_not_offered(tmp_path):
    results = run(tmp_path, obedient)
    assert all("LESIONS" not in row["turns"][0]["text"] for row in results["samples"])
    blind = run(tmp_path, obedient, blind=True)
    assert all("Experts:" not in row["turns"][0]["text"] for row in blind["samples"])


def test_same_questions_as_without_an_expert(tmp_path):
    alone = mini_job("chest_xray", tmp_path).dataset.samples
    offered = job_for_task("chest_xray_expert", DataPlaces(tmp_path, tmp_path / "cache")).dataset.samples
    assert [(s.id, s.messages, s.answers) for s in alone] == [(s.id, s.messages, s.answers) for s in offered]
