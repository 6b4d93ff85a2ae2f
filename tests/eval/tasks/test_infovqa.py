"""InfographicVQA over its mini copy: its own configuration of DocVQA's repository, pictures without a document id."""

import json

from tests.helpers.benchmark_runs import by_id, figures_of, gold, mini_job, run_job, shown
from tests.helpers.mini_benchmarks import picture_of


def test_questions_are_asked_as_lmms_eval_asks_them(tmp_path):
    job = mini_job("infovqa", tmp_path)
    samples = by_id(job)
    assert list(samples) == ["98313", "98314", "98315"]
    assert shown(samples["98315"]) == [
        "<image>",
        "How many icons are red?\nAnswer the question using a single word or phrase.",
    ]
    assert [picture_of(sample.media[0]) for sample in samples.values()] == [11, 11, 12]
    groups = [sample.group for sample in samples.values()]
    assert groups[0] == groups[1] != groups[2] and str(tmp_path) not in groups[0]
    assert samples["98314"].kinds == ["Question span", "Image span"] and job.task.max_new_tokens == 32
    assert job.dataset.info["config"] == "InfographicVQA"


def test_scores(tmp_path):
    job = mini_job("infovqa", tmp_path)
    assert figures_of(job, gold(job))["anls"] == 1.0 and figures_of(job, {})["anls"] == 0.0
    figures = figures_of(job, {"98315": "three", "98314": "40 %"})
    assert figures["anls"] == round(2 / 3, 4) and figures["kinds"]["Image span"] == {"anls": 0.5, "n": 2}


def test_the_test_split_leaves_a_submission(tmp_path):
    job = mini_job("infovqa_test", tmp_path)
    results = run_job(job, {"65719": "40%"})
    assert results["tasks"]["infovqa_test"]["unscored"] == 3
    name, content = job.task.submission(results["samples"])
    assert name == "infovqa_test_for_submission.json"
    assert json.loads(content)[1] == {"questionId": 65719, "answer": "40%"}
    assert mini_job("infovqa", tmp_path).task.submission(results["samples"]) is None
