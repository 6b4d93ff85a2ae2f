"""TextVQA over its mini copy: the lower-cased question, ten annotators, the stop string."""

from tests.helpers.benchmark_runs import by_id, figures_of, gold, mini_job, run_job, shown
from tests.helpers.mini_benchmarks import picture_of


def test_questions_are_asked_as_lmms_eval_asks_them(tmp_path):
    job = mini_job("textvqa", tmp_path)
    samples = by_id(job)
    assert list(samples) == ["34602", "34603", "34604"]
    assert shown(samples["34603"]) == [
        "<image>",
        "What does the white circle of nasa say?\nAnswer the question using a single word or phrase.",
    ]
    assert [len(sample.answers) for sample in samples.values()] == [10, 10, 10]
    assert [sample.group for sample in samples.values()] == ["003a8ae2ef43b901"] * 2 + ["00685bc495504d61"]
    assert [picture_of(sample.media[0]) for sample in samples.values()] == [1, 1, 2]
    assert (job.task.max_new_tokens, job.task.stop) == (32, ("ASSISTANT:",))


def test_annotators_who_agree_decide(tmp_path):
    job = mini_job("textvqa", tmp_path)
    assert figures_of(job, {})["vqa_accuracy"] == 0.0
    assert figures_of(job, gold(job))["vqa_accuracy"] == round((1 + 1 + 0.9) / 3, 4), "three of ten say Simon Clancy"
    results = run_job(job, {"34602": "The Dakota. ASSISTANT: of", "34603": "Open", "34604": "clancy"})
    assert [row["score"] for row in results["samples"]] == [1.0, 1.0, 1.0]
    assert results["samples"][0]["output"] == "The Dakota. "
