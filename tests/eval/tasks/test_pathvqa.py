"""PathVQA: yes/no questions apart from open ones, and VILA-M3's rule, which does not strip."""

from eval.jobs import job_for_task
from eval.sources import DataPlaces
from tests.helpers.benchmark_runs import NONSENSE, by_id, figures_of, gold, mini_job, shown
from tests.helpers.mini_benchmarks import edit_rows, picture_of
from tests.helpers.mini_benchmarks.pathvqa import write


def test_samples(tmp_path):
    samples = list(by_id(mini_job("pathvqa", tmp_path)).values())
    assert shown(samples[1]) == [
        "<image>",
        "are bile duct cells shown here?\nAnswer the question using a single word or phrase.",
    ]
    assert [s.kind for s in samples] == ["open", "yes/no", "yes/no", "open"]
    assert {s.meta["answer_type_from"] for s in samples} == {"gold answer"}
    assert samples[0].group == samples[1].group != samples[2].group == samples[3].group
    assert [picture_of(s.media[0]) for s in samples] == [1, 1, 2, 2]


def test_figures_by_hand(tmp_path):
    answers = {
        "pathvqa-0": "canals of hering",  # three of the four words that are left without the article
        "pathvqa-1": " Yes",  # a blank too many for VILA-M3's PathVQA script
        "pathvqa-2": "yes",
        "pathvqa-3": "thickened",
    }
    figures = figures_of(mini_job("pathvqa", tmp_path), answers)
    assert figures["closed_accuracy"] == figures["closed_accuracy_strict"] == 0.5
    assert figures["closed_accuracy_vila_m3"] == 0.0
    assert figures["open_recall"] == (0.75 + 1) / 2 and figures["exact_match"] == 0.5
    assert figures["kinds"]["yes/no"] == {"closed_accuracy": 0.5, "open_recall": None, "exact_match": 0.5, "n": 2}


def test_a_model_that_knows_and_one_that_does_not(tmp_path):
    job = mini_job("pathvqa", tmp_path)
    names = ("closed_accuracy", "closed_accuracy_vila_m3", "open_recall", "open_f1", "exact_match")
    assert [figures_of(job, gold(job))[name] for name in names] == [1.0] * 5
    assert [figures_of(job, lambda _: NONSENSE)[name] for name in names] == [0.0] * 5


def test_bad_rows_are_named(tmp_path):
    edit_rows(write(tmp_path), lambda rows: (rows[1].update(image=None), rows[2].update(question=None)))
    job = job_for_task("pathvqa", DataPlaces(tmp_path, tmp_path / "cache"))
    problems = {s.id: s.problem for s in job.dataset.samples if s.problem}
    assert problems == {
        "pathvqa-1": "no picture in the row, but NoneType",
        "pathvqa-2": "no question in the row",
    }
    assert figures_of(job, gold(job))["closed_accuracy"] == 0.0
