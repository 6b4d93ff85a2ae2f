"""Findings on chest X-rays: the layout of the release, one question a finding, F1 by hand."""

import gzip

import pytest

from eval.jobs import job_for_task
from eval.sources import DataPlaces
from eval.tasks.chest_xray import FINDINGS
from tests.helpers.benchmark_runs import NONSENSE, by_id, figures_of, gold, mini_job, run_job, shown
from tests.helpers.mini_benchmarks import picture_of
from tests.helpers.mini_benchmarks.chest_xray import LABELS, TEST_LIST, write


def job_of(root, *args):
    write(root, *args)
    return job_for_task("chest_xray", DataPlaces(root, root / "cache"))


def test_questions(tmp_path):
    samples = by_id(mini_job("chest_xray", tmp_path))
    assert len(samples) == 3 * len(FINDINGS) == 3 * 14  # the training image is not asked
    one = samples["00000001_001-Pleural_Thickening"]
    assert shown(one) == ["<image>", "Does this chest X-ray show pleural thickening?\nAnswer yes or no."]
    assert one.answers == ["yes"] and one.kind == "Pleural_Thickening"
    positive = {name for name, sample in samples.items() if sample.answers == ["yes"]}
    assert positive == {"00000001_000-Cardiomegaly", "00000001_001-Cardiomegaly", one.id}
    groups = {name.split("-")[0]: sample.group for name, sample in samples.items()}  # of the patient
    assert groups == {"00000001_000": "00000001", "00000001_001": "00000001", "00000002_000": "00000002"}
    assert picture_of(one.media[0]) == 2


def test_figures_by_hand(tmp_path):
    """Cardiomegaly: TP 1, FN 1, FP 1. Pleural thickening: TP 1. Hernia: FP 1. One answer is neither yes nor no."""
    job = mini_job("chest_xray", tmp_path)
    answers = {name: "No." for name in gold(job)}
    answers |= {
        "00000001_000-Cardiomegaly": "Yes, it does.",
        "00000001_001-Cardiomegaly": "unclear; I cannot know",
        "00000002_000-Cardiomegaly": "yes",
        "00000001_001-Pleural_Thickening": "yes",
        "00000002_000-Hernia": "yes",
    }
    figures = figures_of(job, answers)
    assert figures["f1_macro"] == 0.5  # (1/2 + 1 + 0) / 3; the other findings occur nowhere and have no F1
    assert figures["f1_micro"] == round(2 * 2 / (2 * 2 + 2 + 1), 4)
    assert figures["accuracy"] == round((42 - 3) / 42, 4) and figures["invalid_rate"] == round(1 / 42, 4)
    kinds = figures["kinds"]
    assert kinds["Cardiomegaly"] == {"f1_macro": 0.5, "accuracy": 0.3333, "invalid_rate": 0.3333, "n": 3}
    assert kinds["Hernia"]["f1_macro"] == 0.0 and kinds["Edema"] == {
        "f1_macro": None, "accuracy": 1.0, "invalid_rate": 0.0, "n": 3,
    }  # fmt: skip


def test_models_that_know_deny_affirm_or_babble(tmp_path):
    job = mini_job("chest_xray", tmp_path)
    names = ("f1_macro", "f1_micro", "accuracy", "invalid_rate")
    assert [figures_of(job, gold(job))[name] for name in names] == [1.0, 1.0, 1.0, 0.0]
    denying = [figures_of(job, lambda _: "no")[name] for name in names]
    assert denying == [0.0, 0.0, round(39 / 42, 4), 0.0], "accuracy alone would call it a good model"
    affirming = figures_of(job, lambda _: "yes")
    assert affirming["f1_macro"] == round((4 / 5 + 1 / 2) / 14, 4) and affirming["accuracy"] == round(3 / 42, 4)
    assert [figures_of(job, lambda _: NONSENSE)[name] for name in names] == [0.0, 0.0, 0.0, 1.0]


def test_bad_rows_are_named(tmp_path):
    labels = {**LABELS, "00000002_000.png": "No Finding|Scoliosis", "00000004_000.png": "Mass"}
    job = job_of(tmp_path, labels, [*TEST_LIST, "00000004_000.png", "00000005_000.png", "../../x.png"])
    results = run_job(job, gold(job))
    errors = {row["id"]: row["error"] for row in results["samples"] if row["error"]}
    assert "00000002_000.png: unknown finding 'Scoliosis'; known: Atelectasis" in errors["chest_xray-2"]
    assert "00000005_000.png: in test_list.txt, but not in Data_Entry_2017.csv" in errors["chest_xray-4"]
    assert errors["chest_xray-5"].startswith("../../x.png: in test_list.txt, but not")
    assert "00000004_000.png: no such file" in errors["00000004_000-Mass"]
    # Its picture is missing, its labels are known: a finding that is missed, and a wrong answer to every question.
    kinds = results["tasks"]["chest_xray"]["kinds"]
    assert kinds["Mass"] == {"f1_macro": 0.0, "accuracy": 0.6667, "invalid_rate": 0.3333, "n": 3}


def test_gzipped_table_and_one_folder(tmp_path):
    folder = write(tmp_path)
    table = folder / "Data_Entry_2017.csv"
    (folder / "Data_Entry_2017_v2020.csv.gz").write_bytes(gzip.compress(table.read_bytes()))
    table.unlink()
    for path in sorted(folder.glob("images_*/images/*.png")):
        (folder / "images").mkdir(exist_ok=True)
        path.rename(folder / "images" / path.name)
    samples = job_for_task("chest_xray", DataPlaces(tmp_path, tmp_path / "cache")).dataset.samples
    assert len(samples) == 42 and not [s for s in samples if s.problem]


def test_what_is_missing_is_named(tmp_path):
    places = DataPlaces(tmp_path, tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match="no folder .*chest_xray.*ChestX-ray14"):
        job_for_task("chest_xray", places)
    folder = write(tmp_path)
    (folder / "test_list.txt").rename(folder / "list.txt")
    with pytest.raises(FileNotFoundError, match="no test_list.txt .*training images would be asked too"):
        job_for_task("chest_xray", places)
    (folder / "list.txt").rename(folder / "test_list.txt")
    (folder / "Data_Entry_2017.csv").write_text("name,labels\na,b\n")
    with pytest.raises(ValueError, match="no columns 'Image Index' and 'Finding Labels', but: name, labels"):
        job_for_task("chest_xray", places)
    (folder / "Data_Entry_2017.csv").unlink()
    with pytest.raises(FileNotFoundError, match="needs one file .*, found none"):
        job_for_task("chest_xray", places)
