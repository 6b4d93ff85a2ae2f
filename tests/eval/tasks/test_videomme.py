"""Video-MME: lmms-eval's prompt to the letter, kinds by length, domain and type, intervals by video."""

from eval.bootstrap import interval
from tests.helpers.benchmark_runs import mini_job, shown
from tests.helpers.mini_benchmarks import edit_rows
from tests.helpers.video_task_runs import run_video_job

PROMPT = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles. Respond"
    " with only the letter (A, B, C, or D) of the correct option.\n"
    "Question 001-1?\nA. Apples.\nB. Candles.\nC. Berries.\nD. The three kinds are of the same number.\n\n"
    "Answer with the option's letter from the given choices directly."
)


def test_what_is_asked(tmp_path):
    job = mini_job("videomme", tmp_path)
    sample = job.dataset.samples[0]
    assert shown(sample) == ["<video>", PROMPT]
    assert sample.media[0].endswith("data/fFjv93ACGo8.mp4") and job.dataset.samples[3].media[0].endswith(".mkv")
    assert (sample.id, sample.answers, sample.group) == ("001-1", ["C"], "fFjv93ACGo8")
    assert sample.kinds == ["short", "Knowledge", "Counting Problem"]
    assert sample.scoring["options"][0] == "Apples." and job.task.max_new_tokens == 16


def test_kinds_rules_and_clusters(tmp_path):
    """Two questions on one video right, the others wrong: 0.5, and one right video of three in the interval."""
    job = mini_job("videomme", tmp_path)
    answers = {"001-1": "(C)", "001-2": "A. Apples.", "002-1": "the apples. perhaps", "601-1": "Cannot tell"}
    figures, rows, _ = run_video_job(job, answers)
    assert figures["mcq_accuracy"] == 0.5
    kinds = {kind: (of["mcq_accuracy"], of["n"]) for kind, of in figures["kinds"].items()}
    assert kinds["short"] == (round(2 / 3, 4), 3) and kinds["long"] == (0.0, 1)
    assert kinds["Counting Problem"] == (0.5, 2) and kinds["Knowledge"] == (round(2 / 3, 4), 3)
    aggregate = job.task.aggregates()["mcq_accuracy"]
    assert interval(aggregate, list(rows.values())).clusters == 3


def test_the_harness_rule_and_ours_part_and_the_unreadable_are_counted(tmp_path):
    """`Cannot determine` is C for lmms-eval (the capital), and no answer for us."""
    job = mini_job("videomme", tmp_path)
    figures, _, _ = run_video_job(job, dict.fromkeys(("001-1", "001-2", "002-1", "601-1"), "Cannot determine"))
    assert figures["mcq_accuracy"] == 0.0 and figures["unreadable_rate"] == 1.0
    assert figures["mcq_accuracy.lmms_eval.extract_mcq_answer"] == 0.25


def test_a_row_that_cannot_be_used_counts_in_its_kinds(tmp_path):
    from eval.jobs import job_for_task
    from eval.sources import DataPlaces

    mini_job("videomme", tmp_path)
    (table,) = (tmp_path / "lmms-eval/Video-MME").rglob("*.parquet")
    edit_rows(table, lambda rows: (rows[0].update(answer="E"), rows[3].update(options=None)))
    job = job_for_task("videomme", DataPlaces(tmp_path, tmp_path / "cache"))
    figures, rows, _ = run_video_job(job, {"001-2": "A", "002-1": "B"})
    assert figures["failed"] == 2 and figures["mcq_accuracy"] == 0.5 and figures["kinds"]["long"]["n"] == 1
    assert "gold answer 'E' is none of the options A, B, C, D" in rows["videomme-0"]["error"]
