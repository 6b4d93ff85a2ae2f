"""AI2D over its mini copies: the letter of an index, two rules side by side, options that say the same."""

import pytest

from eval.jobs import job_for_task
from eval.sources import DataPlaces
from eval.tasks.ai2d import gold_letter
from tests.helpers.benchmark_runs import by_id, figures_of, gold, mini_job, run_job, shown
from tests.helpers.mini_benchmarks import edit_rows, picture_of

PUBLIC = "mcq_accuracy.lmms_eval.ai2d_filter"


@pytest.mark.parametrize("name", ["ai2d", "ai2d_no_mask"])
def test_questions_are_asked_as_lmms_eval_asks_them(name, tmp_path):
    job = mini_job(name, tmp_path)
    samples = by_id(job)
    assert shown(samples["test_2"]) == [
        "<image>",
        "What is at the top?\nA. hawk\nB. frog\nC. sun\nD. grass\n"
        "Answer with the option's letter from the given choices directly.",
    ]
    assert [picture_of(sample.media[0]) for sample in samples.values()] == [1, 1, 2]
    assert [sample.answers for sample in samples.values()] == [["B"], ["C"], ["A"]]
    assert samples["test_0"].group == samples["test_1"].group != samples["test_2"].group
    assert samples["test_1"].scoring == {"options": ["snake", "grass", "hawk", "snake"]}
    assert job.task.metrics == ("mcq_accuracy", PUBLIC) and job.task.max_new_tokens == 16


def test_both_rules_and_what_could_not_be_read(tmp_path):
    job = mini_job("ai2d", tmp_path)
    figures = figures_of(job, gold(job))
    assert (figures["mcq_accuracy"], figures[PUBLIC], figures["unreadable_rate"]) == (1.0, 1.0, 0.0)
    figures = figures_of(job, {})
    assert (figures["mcq_accuracy"], figures[PUBLIC], figures["unreadable_rate"]) == (0.0, 0.0, 1.0)
    # the public rule wants a letter and nothing else, or "B." in front; ours reads sentences and texts
    figures = figures_of(job, {"test_0": "The answer is B.", "test_1": "hawk", "test_2": "A. hawk"})
    assert (figures["mcq_accuracy"], figures[PUBLIC]) == (1.0, round(1 / 3, 4))
    assert figures["unreadable_rate"] == 0.0 and set(figures["intervals"]) >= {"mcq_accuracy", "unreadable_rate"}


def test_a_text_that_two_options_share_is_unreadable_not_a_guess(tmp_path):
    job = mini_job("ai2d", tmp_path)
    results = run_job(job, {"test_1": "snake", "test_0": "B", "test_2": "A"})
    assert results["samples"][1]["score"] == 0.0
    assert results["tasks"]["ai2d"]["unreadable_rate"] == round(1 / 3, 4)


def test_an_answer_that_is_no_option_is_a_named_failure(tmp_path):
    mini_job("ai2d", tmp_path)
    table = tmp_path / "lmms-lab-encoder/ai2d/data/test-00000-of-00001.parquet"
    edit_rows(table, lambda rows: (rows[0].update(answer="7"), rows[1].update(answer=None), rows[2].update(image=None)))
    job = job_for_task("ai2d", DataPlaces(tmp_path, tmp_path / "cache"))
    results = run_job(job, {"test_1": "C"})
    errors = {row["id"]: row["error"] for row in results["samples"]}
    assert errors["ai2d-0"] == "answer '7' is none of 4 options, which count from 0"
    assert errors["test_1"] == "no gold answer in the record" and "no picture" in errors["ai2d-2"]
    assert results["tasks"]["ai2d"]["failed"] == 3


def test_the_letter_of_an_index():
    assert gold_letter("0", ["a"]) == ["A"] and gold_letter(3, list("abcd")) == ["D"] and gold_letter(None, []) == []
    for wrong in ("-1", "B", "1.0", 4):
        with pytest.raises(ValueError, match="is none of 4 options"):
            gold_letter(wrong, list("abcd"))
