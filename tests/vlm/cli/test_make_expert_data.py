"""`radio-vlm make-expert-data`: options, the summary, and errors in one line."""

import json

import pytest
import yaml

from tests.helpers.labelled_images import random_findings, records_of, write_rows, write_set
from vlm.cli.main import main

pytest.importorskip("pydicom", reason="optional package absent: pydicom")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    write_set(folder / "set", ct=4, dx=2, mr=1)
    random_findings(folder / "weights")
    return folder


def command(labelled, out, *more):
    return main(["make-expert-data", "--images", str(labelled / "set"), "--out", str(out), *map(str, more)])


def test_from_images_to_parts_with_ones_own_words_and_mixture(labelled, tmp_path, capsys):
    (tmp_path / "words.yaml").write_text(
        "questions: {number: 'Number?', side: 'Side?', size: 'Size?', effusion: 'Effusion?'}\n"
        "answers: {wrong_modality: 'not {reads}', fails: unknown, unavailable: unknown, contradiction: disagree}\n"
    )
    (tmp_path / "mixture.yaml").write_text("expert-LESIONS: 5\nvqa: 0.5\n")
    options = ("--expert-weights", labelled / "weights", "--wording", tmp_path / "words.yaml", "--seed", 4)
    options += (
        "--mixture",
        tmp_path / "mixture.yaml",
        "--shares",
        "contradiction=1",
        "unavailable=1",
        "wrong_modality=1",
    )
    assert command(labelled, tmp_path / "out", *options) == 0
    said = capsys.readouterr().out
    assert "form" in said and "7 images" in said and "0% kept from before" in said and "written to" in said
    header = json.loads((tmp_path / "out" / "negatives" / "dataset.json").read_text())
    assert header["experts"] == ["FINDINGS", "LESIONS"] and (header["seed"], header["split"]) == (4, "train")
    negatives = records_of(tmp_path / "out" / "negatives")
    assert header["n"] == len(negatives)
    words = {form: {r["meta"]["answers"][0] for r in negatives if r["meta"]["form"] == form} for form in
             ("wrong_modality", "unavailable", "contradiction")}  # fmt: skip
    assert words == {
        "wrong_modality": {"not CT", "not DX/CR"},
        "unavailable": {"unknown"},
        "contradiction": {"disagree"},
    }
    asked = {item["text"] for r in records_of(tmp_path / "out" / "expert-LESIONS") for message in r["messages"]
             for item in message["content"][-1:]}  # fmt: skip
    assert {"Number?", "Side?", "Size?"} <= asked
    entries = {
        entry["path"]: entry["repeats"] for entry in yaml.safe_load((tmp_path / "out" / "mixture.yaml").read_text())
    }
    assert entries == {"expert-FINDINGS": 1, "expert-LESIONS": 5, "negatives": 1, "reports": 1, "vqa": 0.5}
    assert command(labelled, tmp_path / "out", *options, "--experts", "LESIONS", "--limit", 3) == 0
    assert "100% kept from before" in capsys.readouterr().out and not (tmp_path / "out" / "expert-FINDINGS").exists()


def test_originals_stay_dicom(labelled, tmp_path):
    assert command(labelled, tmp_path / "out", "--experts", "LESIONS", "--originals") == 0
    images = sorted((tmp_path / "out" / "vqa" / "images").iterdir())
    assert images and {file.suffix for file in images} == {".dcm"}
    item = records_of(tmp_path / "out" / "vqa")[0]["messages"][0]["content"][0]
    assert (tmp_path / "out" / "vqa" / item["image"]).is_file() and "modality" not in item  # the header says it


def test_a_lopsided_set_is_warned_about(tmp_path, capsys):
    rows = write_set(tmp_path / "set", ct=1, dx=0, mr=0)
    more = [
        rows[0] | {"id": f"x{n}", "qa": [{"question": "Table?", "answer": "no", "kind": "table"}]} for n in range(25)
    ]
    write_rows(tmp_path / "set", more)
    assert main(["make-expert-data", "--images", str(tmp_path / "set"), "--out", str(tmp_path / "out")]) == 0
    assert "warning: table: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--workers", "0"), "--workers must be at least 1"),
        (("--limit", "-1"), "--limit must be at least 1"),
        (("--experts", "LESION"), "--experts: unknown expert LESION; known: BRATS"),
        (("--expert-weights", "nowhere"), "--expert-weights: no such folder nowhere"),
        (("--shares", "experts=1"), "--shares: unknown form 'experts'"),
        (("--mixture", "nowhere.yaml"), "--mixture nowhere.yaml: neither vila-m3 nor a file"),
        (("--wording", "nowhere.yaml"), "--wording nowhere.yaml: cannot be read"),
        (("--split", "val"), "no image is of the split val"),
    ],
)
def test_usage_errors_are_one_line_and_write_nothing(labelled, tmp_path, capsys, options, words):
    assert command(labelled, tmp_path / "out", *options) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and not (tmp_path / "out").exists()


def test_two_splits_do_not_share_a_folder(labelled, tmp_path, capsys):
    write_set(tmp_path / "set", ct=1, dx=0, mr=0, split="test")
    out = tmp_path / "out"
    assert command(labelled, out, "--experts", "LESIONS") == 0
    assert main(["make-expert-data", "--images", str(tmp_path / "set"), "--out", str(out), "--split", "test"]) == 2
    assert "holds the split train; give the split test a folder of its own" in capsys.readouterr().err
