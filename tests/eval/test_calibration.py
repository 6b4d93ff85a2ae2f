"""`--calibration` through whole tasks: which questions are weighed, at which prompt, and what the results hold."""

import json

from eval.backends.base import Batch, Reply
from eval.backends.radio import RadioBackend
from eval.backends.yes_no import YesNo
from eval.compare import main as compare
from eval.evaluate import evaluate
from eval.jobs import Job
from eval.journal import remove_journal
from eval.results import write_json
from eval.run import main
from eval.tasks.base import Options
from eval.tasks.chest_xray_expert import ChestXrayExpert
from tests.helpers.benchmark_runs import mini_job
from tests.helpers.scripted_backend import ScriptedBackend
from tests.helpers.stage_runs import small_vlm
from tests.helpers.xray_expert import XrayExpert

FIGURES = {"ece", "ece_adaptive", "brier", "auroc"}


class Weighing(ScriptedBackend):
    """Knows P(yes) by the words of the last turn."""

    def __init__(self, answer, p_yes):
        super().__init__(answer)
        self.p_yes, self.weighed = p_yes, []

    def encode(self, messages, sample_id):
        encoded = super().encode(messages, sample_id)
        encoded.prompt = messages[-1]["content"][-1]["text"]
        return encoded

    def generate(self, batch, decoding):
        return Batch([Reply(text=self.answer(one.prompt), tokens=1, stopped=True) for one in batch])

    def yes_no(self, batch):
        self.weighed += [one.prompt for one in batch]
        return [YesNo(self.p_yes(one.prompt), 0.75) for one in batch]


def test_closed_yes_no_questions_are_weighed_and_no_others(tmp_path):
    job = mini_job("vqa_rad", tmp_path)
    backend = Weighing(lambda _: "yes", lambda words: 0.25 if len(words) % 2 else 0.5)
    results = evaluate(backend, [job], Options(calibration=True), batch_size=2, progress=False)
    figures, rows = results["tasks"]["vqa_rad"], results["samples"]
    weighed = [row for row in rows if "p_yes" in row]
    assert 0 < len(weighed) < len(rows) and len(backend.weighed) == len(weighed)
    for row in rows:
        closed = row["answer_type"] == "closed" and row["answers"][0].strip().lower() in ("yes", "no")
        assert ("p_yes" in row) == (closed and (row["error"] is None))
    assert all(row["gold_yes"] == (row["answers"][0].strip().lower() == "yes") for row in weighed)
    assert figures.keys() >= FIGURES and figures["calibration"]["n"] == len(weighed)
    assert figures["calibration"]["mass"] == 0.75 and len(figures["calibration"]["bins"]) == 10
    assert results["provenance"]["tasks"]["vqa_rad"]["definitions"].keys() >= FIGURES
    # the second run is better by its probabilities alone: the comparison knows these figures
    write_json(results, tmp_path / "a.json")
    assert compare([str(tmp_path / "a.json")] * 2) == 0


def test_nothing_is_weighed_unasked(tmp_path):
    backend = Weighing(lambda _: "yes", lambda _: 0.5)
    results = evaluate(backend, [mini_job("vqa_rad", tmp_path)], Options(), progress=False)
    assert backend.weighed == [] and not results["tasks"]["vqa_rad"].keys() & {*FIGURES, "calibration"}


def test_conversations_are_weighed_after_the_experts_result(tmp_path):
    dataset = mini_job("chest_xray", tmp_path).dataset
    task = ChestXrayExpert(dataset, instances={"XRAY": XrayExpert({1: "cardiomegaly", 2: "edema"})})

    def answer(words):
        return "no" if words.startswith("findings:") else "<XRAY()>"

    backend = Weighing(answer, lambda words: 0.9)
    options = Options(calibration=True, controls=True)
    results = evaluate(backend, [Job(task, dataset)], options, progress=False)
    asked = [row for row in results["samples"] if row["control"] is None]
    assert len(backend.weighed) == len(asked) and all(words.startswith("findings:") for words in backend.weighed)
    assert all(row["p_yes"] == 0.9 for row in asked)
    assert not any("p_yes" in row for row in results["samples"] if row["control"])


def test_a_prompt_that_cannot_be_weighed_costs_itself_alone(tmp_path, caplog):
    def p_yes(words):
        if "nodule" in words:
            raise RuntimeError("no logits")
        return 0.5

    backend = Weighing(lambda _: "yes", p_yes)
    results = evaluate(backend, [mini_job("chest_xray", tmp_path)], Options(calibration=True), progress=False)
    lost = [row["kind"] for row in results["samples"] if "p_yes" not in row]
    assert set(lost) == {"Nodule"} and "P(yes) not known: RuntimeError: no logits" in caplog.text
    assert results["tasks"]["chest_xray"]["calibration"]["n"] == len(results["samples"]) - len(lost)


def test_a_resumed_run_does_not_weigh_again(tmp_path):
    job, out = mini_job("chest_xray", tmp_path), tmp_path / "r.json"
    first, again = (Weighing(lambda _: "yes", lambda words: len(words) / 100) for _ in range(2))
    before = evaluate(first, [job], Options(calibration=True), progress=False, out=out)
    after = evaluate(again, [job], Options(calibration=True), progress=False, out=out, resume=True)
    assert first.weighed and again.weighed == [] and before["tasks"] == after["tasks"]
    remove_journal(out)
    write_json(after, out)  # and from the finished file
    whole = Weighing(lambda _: "yes", lambda words: 0.5)
    assert (
        evaluate(whole, [job], Options(calibration=True), progress=False, out=out, resume=True)["tasks"]
        == before["tasks"]
    )
    assert whole.weighed == []


def test_where_probabilities_cannot_be_had_the_answers_still_count(tmp_path, caplog):
    backend = ScriptedBackend(lambda _: "yes")
    results = evaluate(backend, [mini_job("chest_xray", tmp_path)], Options(calibration=True), progress=False)
    assert "cannot be known through scripted" in caplog.text and "ece" not in results["tasks"]["chest_xray"]


def test_a_real_model(tmp_path):
    options = Options(calibration=True, limit=6, max_new_tokens=2)
    results = evaluate(RadioBackend(*small_vlm()), [mini_job("chest_xray", tmp_path)], options, progress=False)
    assert results["tasks"]["chest_xray"]["calibration"]["n"] == 6
    assert all(0 < row["p_yes"] < 1 and 0 < row["yes_no_mass"] < 1 for row in results["samples"])


def test_the_flag_needs_a_task_that_can_be_weighed(tmp_path, capsys):
    (tmp_path / "q.jsonl").write_text(json.dumps({"id": "a", "question": "Q?", "answer": "A"}) + "\n")
    assert (
        main(["--model", "m", "--data", str(tmp_path / "q.jsonl"), "--calibration", "--out", str(tmp_path / "o.json")])
        == 2
    )
    assert "--calibration: none of the tasks has yes/no questions" in capsys.readouterr().err
