"""MMLongBench-Doc over its mini copy: the whole document or its evidence pages, formats of answers, two figures."""

import pytest

from eval.jobs import job_for_task
from eval.sources import DataPlaces
from tests.helpers.benchmark_runs import by_id, figures_of, gold, mini_job, run_job, shown
from tests.helpers.mini_benchmarks import edit_rows

SUFFIX = "\nAnswer with a single word or phrase. If the answer is not in the document, answer 'Not answerable'."
COPY = "yubo2333/MMLongBench-Doc"
NAMES = ["mmlongbench_doc", "mmlongbench_doc_evidence"]


def documents(job):
    """Sample id → its document item without the path, None where there is none."""
    items = {name: sample.messages[0]["content"][0] for name, sample in by_id(job).items()}
    return {
        name: {key: value for key, value in item.items() if key not in ("type", "document")}
        if item["type"] == "document"
        else None
        for name, item in items.items()
    }


def test_the_whole_document_is_shown_up_to_120_pages(tmp_path):
    job = mini_job("mmlongbench_doc", tmp_path)
    sample = by_id(job)["train_0"]
    assert shown(sample) == ["<document>", f"What figure is on the last page?{SUFFIX}"]
    assert sample.media == [str((tmp_path / COPY / "documents/Independents-Report.pdf").resolve())]
    whole = {"dpi": 144, "labels": False}
    assert documents(job) == {**{f"train_{n}": whole for n in range(4)}, "train_4": {**whole, "pages": "1-120"}}
    assert job.task.max_new_tokens == 1024 and job.dataset.info["pages"] == "the first 120"


def test_evidence_pages_are_shown_once_and_in_their_order(tmp_path):
    job = mini_job("mmlongbench_doc_evidence", tmp_path)
    pages = {name: item and item["pages"] for name, item in documents(job).items()}
    assert pages == {"train_0": [3], "train_1": [3, 1], "train_2": [1, 2], "train_3": None, "train_4": [121]}
    assert shown(by_id(job)["train_3"]) == [f"Who wrote it?{SUFFIX}"]


def test_the_pages_that_reach_the_model_are_those(tmp_path):
    from vlm.prompt_documents import expand_documents

    (turn,) = expand_documents(by_id(mini_job("mmlongbench_doc_evidence", tmp_path))["train_1"].messages)
    assert [item["type"] for item in turn["content"]] == ["image", "image", "text"]
    assert [item["image"].number for item in turn["content"][:2]] == [3, 1]
    (turn,) = expand_documents(by_id(mini_job("mmlongbench_doc", tmp_path))["train_4"].messages)
    assert len(turn["content"]) == 121


@pytest.mark.parametrize("name", NAMES)
def test_answers_groups_and_sub_scores(name, tmp_path):
    samples = by_id(mini_job(name, tmp_path))
    report = "Research report / Introduction"
    assert samples["train_1"].kinds == ["answer: Float", "cross-page", "Chart", "Table", report]
    assert samples["train_3"].kinds == ["answer: None", "unanswerable", report]
    assert samples["train_2"].answers == ["['red', 'green']"] and samples["train_2"].group == "Independents-Report.pdf"
    assert samples["train_2"].scoring == {"answer_format": "List"}


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_and_f1(name, tmp_path):
    job = mini_job(name, tmp_path)
    figures = figures_of(job, gold(job))
    assert (figures["accuracy"], figures["f1"]) == (1.0, 1.0)
    assert (figures_of(job, {})["accuracy"], figures_of(job, {})["f1"]) == (0.0, 0.0)
    everything_refused = figures_of(job, lambda _: "Not answerable")
    assert (everything_refused["accuracy"], everything_refused["f1"]) == (0.2, 0.0)
    figures = figures_of(job, {"train_0": "It is 3", "train_1": "0.183", "train_2": "['green', 'red']"})
    assert figures["accuracy"] == 0.6 and figures["f1"] == round(2 * 0.75 * 0.6 / 1.35, 4)
    assert figures["kinds"]["cross-page"] == {"accuracy": 1.0, "n": 2} and figures["kinds"]["Guidebook"]["n"] == 1


def test_bad_documents_and_rows_are_named(tmp_path):
    mini_job("mmlongbench_doc", tmp_path)

    def change(rows):
        rows[0]["doc_id"] = "../../secret.pdf"
        rows[1]["doc_id"] = "gone.pdf"
        rows[2]["evidence_pages"] = "exit()"
        rows[3]["answer"] = None

    edit_rows(tmp_path / COPY / "data/train-00000-of-00001.parquet", change)
    (tmp_path / COPY / "documents/long-manual.pdf").write_bytes(b"%PDF-1.4 cut short")
    job = job_for_task("mmlongbench_doc", DataPlaces(tmp_path, tmp_path / "cache"))
    errors = [row["error"] for row in run_job(job, gold(job))["samples"]]
    assert errors[0] == "doc_id '../../secret.pdf' is no file name" and "gone.pdf: no such file" in errors[1]
    assert errors[2] == "evidence_pages is not the text of a list: 'exit()'"
    assert errors[3] == "no gold answer in the record" and "long-manual.pdf" in errors[4]


def test_an_evidence_page_that_the_document_lacks_fails_in_its_turn(tmp_path):
    mini_job("mmlongbench_doc_evidence", tmp_path)
    edit_rows(tmp_path / COPY / "data/train-00000-of-00001.parquet", lambda rows: rows[0].update(evidence_pages="[99]"))
    job = job_for_task("mmlongbench_doc_evidence", DataPlaces(tmp_path, tmp_path / "cache"))
    results = run_job(job, gold(job))
    assert "page 99 is not in a document of 3 pages" in results["samples"][0]["error"]
    assert results["tasks"]["mmlongbench_doc_evidence"]["accuracy"] == 0.8
