"""EgoSchema: the subset with public answers is scored, the whole set leaves a file for the benchmark's server."""

import json

from tests.helpers.benchmark_runs import mini_job, run_job, shown
from tests.helpers.video_task_runs import run_video_job

PROMPT = (
    "What is the overarching behavior of C in clip 0?\nA. C cooks.\nB. C cleans the house.\nC. C plays cards.\n"
    "D. C gardens.\nE. C reads a book.\nAnswer with the option's letter from the given choices directly."
)


def test_what_is_asked(tmp_path):
    job = mini_job("egoschema", tmp_path)
    first, second = job.dataset.samples
    assert shown(first) == ["<video>", PROMPT] and (first.answers, second.answers) == (["D"], ["A"])
    assert first.group == "0074f737-11cb-497d-8d07-77c3a8127000" and first.scoring["options"][4] == "C reads a book."


def test_answers_by_letter_and_by_text(tmp_path):
    """The wearer of the camera is called C: for lmms-eval `C gardens` names option C, for us the option with the text.

    Other words about C name nothing, and must not be read as its letter.
    """
    job = mini_job("egoschema", tmp_path)
    figures, rows, _ = run_video_job(job, {"0": "C gardens.", "1": "A"})
    assert figures["mcq_accuracy"] == 1.0 and figures["mcq_accuracy.lmms_eval.egoschema"] == 0.5
    figures, rows, _ = run_video_job(job, {"0": "C tidies up the garden.", "1": "C"})
    assert figures["mcq_accuracy"] == 0.0 and figures["unreadable_rate"] == 0.5


def test_the_whole_set_is_not_scored_and_leaves_a_submission(tmp_path):
    job = mini_job("egoschema_full", tmp_path)
    results = run_job(job, {"0": "B", "1": "I cannot say"} | {"2": "<think>A?</think> (E)"})
    figures, rows = results["tasks"]["egoschema_full"], results["samples"]
    assert figures["mcq_accuracy"] is None and figures["unscored"] == 3 and figures["failed"] == 0
    assert all("not public" in row["unscored"] for row in rows)
    asked_again = run_job(job, {"0": "B"}, controls=True)["samples"]
    assert len(asked_again) == len(rows), "without gold answers a control has nothing to compare"
    name, content = job.task.submission(rows)
    video = "0074f737-11cb-497d-8d07-77c3a8127"
    assert name == "egoschema.json"
    assert json.loads(content) == {f"{video}000": 1, f"{video}001": -1, f"{video}002": 4}
