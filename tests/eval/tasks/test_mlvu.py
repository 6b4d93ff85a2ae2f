"""MLVU: the question as the table has it, the macro mean over kinds, generation tasks unscored."""

import pytest

from tests.helpers.benchmark_runs import by_id, mini_job, shown
from tests.helpers.video_task_runs import run_video_job

QUESTION = "What happens in needle 0?\n(A) Delivers a product\n(B) Shakes the woman's hand\n(C) Takes the card\n(D) Points at something\n"  # noqa: E501


def test_what_is_asked(tmp_path):
    samples = by_id(mini_job("mlvu", tmp_path))
    assert shown(samples["needle-Q0"]) == ["<video>", QUESTION + "\nOnly give the best option.\nBest option: ("]
    assert samples["needle-Q0"].answers == ["A"] and samples["needle-Q0"].kind == "needle"
    assert samples["ego-Q0"].media[0].endswith("ego_2.mp4"), "the table's name has no suffix"
    assert samples["ego-Q0"].group == "ego_2" and samples["needle-Q0"].group == "needle_1"


def test_the_macro_mean_is_not_the_mean(tmp_path):
    """needle: 1 of 3 right, ego: 1 of 1. Macro (1/3 + 1) / 2 = 0.6667, plain 2/4 = 0.5."""
    job = mini_job("mlvu", tmp_path)
    figures, rows, _ = run_video_job(
        job, {"needle-Q0": "A)", "needle-Q1": "A)", "needle-Q2": "A)", "ego-Q0": "D) green"}
    )
    assert job.task.headline == "mcq_accuracy_macro" and figures["mcq_accuracy_macro"] == 0.6667
    assert figures["mcq_accuracy"] == 0.5
    assert figures["mcq_accuracy.lmms_eval.extract_mcq_answer_macro"] == 0.6667
    assert figures["kinds"]["needle"]["mcq_accuracy_macro"] == 0.3333


def test_options_with_the_same_text(tmp_path):
    """`red` is A and B: it names neither, and nothing breaks."""
    figures, rows, _ = run_video_job(mini_job("mlvu", tmp_path), {"ego-Q0": "It is red"})
    assert rows["ego-Q0"]["score"] == 0.0 and rows["ego-Q0"]["error"] is None


def test_generation_needs_a_judge(tmp_path):
    job = mini_job("mlvu", tmp_path)
    figures, rows, _ = run_video_job(job, {"summary-Q0": "A man walks."})
    row = rows["summary-Q0"]
    assert row["unscored"] == "needs a judge model (--judge)" and row["score"] is None
    assert row["output"] == "A man walks."
    assert figures["unscored"] == 1 and figures["kinds"]["summary"] == {"mcq_accuracy_macro": None, "n": 1}
    assert row["prompt"] == "<video>What happens in summary 0?\n"


def test_the_test_set_asks_the_question_alone(tmp_path):
    job = mini_job("mlvu_test", tmp_path)
    sample = job.dataset.samples[0]
    (_, text) = shown(sample)
    assert text.startswith("What happens in anomaly_reco 0?\n(A) Fighting") and text.endswith("(F) Vandalism\n")
    assert sample.answers == ["F"] and len(sample.scoring["options"]) == 6
    figures, _, _ = run_video_job(job, {"anomaly_reco-Q0": "F", "sportsQA-Q0": "E"})
    assert figures["mcq_accuracy_macro"] == 0.5 == figures["mcq_accuracy.lmms_eval.extract_mcq_answer_macro"]


@pytest.mark.parametrize("name", ["mlvu", "mlvu_test"])
def test_a_failed_question_counts_in_its_kind(name, tmp_path):
    from dataclasses import replace

    job = mini_job(name, tmp_path)
    samples = [replace(one, problem="gone" if place == 0 else None) for place, one in enumerate(job.dataset.samples)]
    job = replace(job, dataset=replace(job.dataset, samples=samples))
    figures, _, _ = run_video_job(job, {one.id: one.answers[0] for one in samples})
    expected = (2 / 3 + 1) / 2 if name == "mlvu" else 0.5
    assert figures["mcq_accuracy_macro"] == pytest.approx(expected, abs=1e-4)
