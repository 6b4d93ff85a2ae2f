"""MMMU over its mini copy: pictures at their markers, two kinds of questions in one figure, 30 subjects."""

import pytest

from eval.jobs import job_for_task
from eval.sources import DataPlaces
from eval.tasks.mmmu import DISCIPLINE_OF, gold_answers, listed
from tests.helpers.benchmark_runs import by_id, figures_of, gold, mini_job, run_job, shown
from tests.helpers.mini_benchmarks import edit_rows, picture_of

DIRECT = "\n\nAnswer with the option's letter from the given choices directly."
PHRASE = "\n\nAnswer the question using a single word or phrase."
TABLE = "lmms-lab-encoder/MMMU/data/validation-00000-of-00001.parquet"


def test_pictures_stand_where_their_markers_are(tmp_path):
    samples = by_id(mini_job("mmmu", tmp_path))
    turns = {name.removeprefix("validation_"): (shown(s), [*map(picture_of, s.media)]) for name, s in samples.items()}
    assert turns == {
        "Accounting_1": (
            ["<image>", f"Baxter Company has a relevant range. What is the cost?\nA. $6\nB. $7\nC. $8{DIRECT}"],
            [1],
        ),
        "Art_Theory_7": (
            ["Who painted", "<image>", "after", "<image>", f"?\nA. Monet\nB. Manet's pupil{DIRECT}"],
            [12, 11],
        ),
        "Biology_3": (
            ["Which one shows a cell?\nA.", "<image>", "B.", "<image>", f"C. neither{DIRECT}"],
            [21, 22],
        ),
        "Electronics_28": (["Find V in", "<image>", ". Use the symbols of", "<image>", f".{PHRASE}"], [31, 31]),
        "Pharmacy_9": (["How often is it open?", "<image>", PHRASE.strip()], [41]),
    }


def test_scoring_groups_and_sub_scores_of_a_question(tmp_path):
    job = mini_job("mmmu", tmp_path)
    samples = by_id(job)
    art, open_question = samples["validation_Art_Theory_7"], samples["validation_Electronics_28"]
    assert art.kinds == ["Art and Design", "Art_Theory", "multiple-choice"]
    assert art.scoring == {"question_type": "multiple-choice", "options": ["Monet", "Manet's pupil"]}
    assert open_question.scoring == {"question_type": "open"} and open_question.answers == ["8.4"]
    assert samples["validation_Pharmacy_9"].answers == ["24/7", "always"]
    assert len({sample.group for sample in samples.values()}) == 5 and len(DISCIPLINE_OF) == 30
    assert job.task.max_new_tokens == 128 and job.task.headline == "accuracy"


def test_both_kinds_of_questions_make_one_figure(tmp_path):
    job = mini_job("mmmu", tmp_path)
    figures = figures_of(job, gold(job))
    assert (figures["accuracy"], figures["accuracy_official"], figures["unreadable_rate"]) == (1.0, 1.0, 0.0)
    figures = figures_of(job, {})
    assert (figures["accuracy"], figures["accuracy_official"], figures["unreadable_rate"]) == (0.0, 0.0, 1.0)
    answers = {"Accounting_1": "B) $7", "Art_Theory_7": "b", "Electronics_28": "So V is 8.40 volts"}
    figures = figures_of(job, {f"validation_{name}": text for name, text in answers.items()})
    # "B)" is no form of MMMU's own rule; nonsense to Biology_3 is unreadable, to Pharmacy_9 just wrong
    assert (figures["accuracy"], figures["accuracy_official"]) == (0.4, 0.2)
    assert figures["unreadable_rate"] == round(1 / 3, 4)
    assert figures["kinds"]["multiple-choice"] == {"accuracy": round(1 / 3, 4), "n": 3}
    assert figures["kinds"]["open"] == {"accuracy": 0.5, "n": 2}
    assert figures["kinds"]["Business"] == {"accuracy": 1.0, "n": 1} == figures["kinds"]["Accounting"]


def test_bad_rows_are_named(tmp_path):
    mini_job("mmmu", tmp_path)

    def change(rows):
        rows[0]["image_1"] = None
        rows[1]["options"] = "__import__('os').abort()"
        rows[2]["question_type"] = "essay"
        rows[3]["answer"] = "?"

    edit_rows(tmp_path / TABLE, change)
    job = job_for_task("mmmu", DataPlaces(tmp_path, tmp_path / "cache"))
    results = run_job(job, gold(job))
    errors = [row["error"] or "" for row in results["samples"]]
    assert errors[0] == "<image 1> is in the question, but there is no picture image_1"
    assert errors[1].startswith("options are not the text of a list: \"__import__('os')")
    assert errors[2] == "question_type is 'essay'; known: multiple-choice, open"
    assert errors[3] == "no gold answer in the record" and errors[4] == ""
    assert results["samples"][0]["kinds"] == ["Business", "Accounting", "multiple-choice"]
    assert results["tasks"]["mmmu"]["accuracy"] == 0.2


def test_lists_in_strings():
    assert listed("['a', 2]") == ["a", "2"]
    assert gold_answers("['24/7', '3.4']") == ["24/7", "3.4"] and gold_answers("[0, 1)") == ["[0, 1)"]
    assert gold_answers("B") == ["B"] and gold_answers(None) == gold_answers("?") == []
    for text in ("[]", "'a'", "[open('x')]", "", "(" * 500):
        with pytest.raises(ValueError, match="not the text of a list"):
            listed(text)
