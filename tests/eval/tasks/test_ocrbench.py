"""OCRBench over its mini copy: the bare question, points by type, formulas without blanks."""

from tests.helpers.benchmark_runs import by_id, figures_of, gold, mini_job, shown
from tests.helpers.mini_benchmarks import picture_of


def test_questions_are_asked_as_lmms_eval_asks_them(tmp_path):
    job = mini_job("ocrbench", tmp_path)
    samples = by_id(job)
    assert shown(samples["test_0"]) == ["<image>", "what is written in the image?"]
    assert shown(samples["test_2"]) == ["<image>", "what is the price?"]
    assert [picture_of(sample.media[0]) for sample in samples.values()] == [0, 1, 2, 3]
    assert samples["test_3"].scoring == {"dataset": "HME100k"} and samples["test_2"].answers == ["12.00", "$12.00"]
    assert samples["test_0"].kinds == ["Regular Text Recognition", "Text Recognition"]
    assert job.task.max_new_tokens == 128


def test_points_are_right_answers_by_type(tmp_path):
    job = mini_job("ocrbench", tmp_path)
    everything = figures_of(job, gold(job))
    assert (everything["ocrbench"], everything["points"]) == (1.0, 4)
    assert (figures_of(job, {})["ocrbench"], figures_of(job, {})["points"]) == (0.0, 0)
    figures = figures_of(job, {"test_0": "It says: centre", "test_2": "112.00", "test_3": "X^{2}+ 1"})
    assert (figures["ocrbench"], figures["points"], figures["n"]) == (0.75, 3, 4)
    assert figures["kinds"]["Text Recognition"] == {"ocrbench": 0.5, "n": 2, "points": 1}
    assert figures["kinds"]["Artistic Text Recognition"] == {"ocrbench": 0.0, "n": 1, "points": 0}
    assert figures_of(job, {"test_3": "x^{2}+1"})["points"] == 0, "formulas keep their case"
