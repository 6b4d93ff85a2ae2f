"""Labelled sets as people have them: lines, tables, ChestX-ray14; what is wrong is named with file and line."""

import json

import pytest

from training.data.expert_dialogues.labelled_set import LabelledSetError, patient_numbers, read_labelled_set
from training.data.synthetic.split_hash import split_of

GOOD = {"image": "a.png", "patient": "P1"}


def write(folder, *rows):
    folder.mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"x")
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "images.jsonl").write_text("\n".join(lines))
    return folder


def test_labels_become_words(tmp_path):
    labels = {"number": 2, "effusion": True, "nodule": False, "size": 14.5, "side": " left ", "unknown": None}
    row = GOOD | {"labels": labels, "qa": [{"question": "Table?", "answer": True}], "report": " ", "modality": "mri"}
    (image,) = read_labelled_set(write(tmp_path / "s", row))
    assert image.labels == {"number": "2", "effusion": "yes", "nodule": "no", "size": "14.5", "side": "left"}
    assert (image.qa[0].answer, image.qa[0].kind) == ("yes", "qa") and image.report is None and image.modality == "MR"
    assert image.split == split_of("P1") and image.where.endswith("images.jsonl:1")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "a line is an object"),
        (GOOD | {"lables": {}}, "unknown key 'lables'; known: id, image"),
        ({"patient": "P"}, "one of 'image' and 'volume'"),
        (GOOD | {"volume": "b.png"}, "one of 'image' and 'volume'"),
        (GOOD | {"image": "../outside.png"}, "leaves the folder"),
        (GOOD | {"image": "/etc/hostname"}, "leaves the folder"),
        (GOOD | {"image": "link.png"}, "leaves the folder"),
        (GOOD | {"image": "c.png"}, "does not exist"),
        (GOOD | {"image": "."}, "leaves the folder"),
        ({"image": "a.png"}, "'patient' is missing"),
        (GOOD | {"split": "dev"}, "unknown split 'dev'; known: train, val, test"),
        (GOOD | {"labels": {"number": [1]}}, "the label 'number' must be true, false, a number or text"),
        (GOOD | {"labels": [1]}, "'labels' must be an object"),
        (GOOD | {"qa": [{"question": "A?", "answr": 1}]}, "in 'qa': unknown key 'answr'"),
        (GOOD | {"qa": [{"question": "A?"}]}, "needs 'question' and 'answer'"),
        (GOOD | {"modality": "brain"}, "unknown modality 'brain'"),
        (GOOD | {"report": 3}, "'report' must be text"),
        (GOOD | {"report": "See <LESIONS()>."}, "the report reads as the call of an expert"),
        (GOOD | {"qa": [{"question": "<A()>?", "answer": "<A( >"}]}, "the answer reads as the call of an expert"),
        (GOOD | {"labels": {"side": "<LESIONS()>"}}, "the answer reads as the call of an expert"),
        (GOOD | {"labels": {"size": float("nan")}}, "a number or text, not nan"),
        (GOOD | {"qa": [{"question": "A \ud83d?", "answer": 1}]}, "half a character"),
        (GOOD | {"volume": "series", "image": None}, "holds a link to a file outside"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, row, words):
    (tmp_path / "outside.png").write_bytes(b"x")
    folder = write(tmp_path / "s", GOOD, row)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "series").mkdir()
    (folder / "series" / "1.dcm").symlink_to(tmp_path / "outside.png")
    with pytest.raises(LabelledSetError, match=r"images\.jsonl:2: ") as error:
        read_labelled_set(folder)
    assert words in str(error.value)


def test_a_patient_in_two_splits_is_refused(tmp_path):
    rows = [GOOD | {"split": "train"}, GOOD | {"image": "b.png", "split": "test"}]
    with pytest.raises(LabelledSetError, match=r"jsonl:2: its patient is in the split test here and in train at .*:1"):
        read_labelled_set(write(tmp_path / "s", *rows))
    rows[1]["patient"] = "P2"
    assert [image.split for image in read_labelled_set(write(tmp_path / "s", *rows))] == ["train", "test"]


def test_a_file_in_two_splits_is_refused(tmp_path):
    rows = [GOOD | {"split": "train"}, {"image": "./a.png", "patient": "P2", "split": "test"}]
    with pytest.raises(LabelledSetError, match=r"jsonl:2: its file is in the split test here and in train at .*:1"):
        read_labelled_set(write(tmp_path / "s", *rows))


def test_messages_repeat_nothing_that_may_name_a_patient(tmp_path):
    for row in (
        {"image": "zebrowski/1.dcm"}, {"image": "../zebrowski.png"}, {"image": "zebrowski\0"}, {"qa": ["zebrowski"]},
        {"labels": {"side": {"zebrowski": 1}}}, {"id": "zebrowski"},
    ):  # fmt: skip
        with pytest.raises(LabelledSetError, match=r"images\.jsonl:2: ") as error:
            read_labelled_set(write(tmp_path / "s", GOOD | {"id": "zebrowski"}, GOOD | row))
        assert "zebrowski" not in str(error.value)


def test_an_id_twice_and_an_empty_folder(tmp_path):
    with pytest.raises(LabelledSetError, match=":2: its id stands at .*:1 already"):
        read_labelled_set(write(tmp_path / "s", GOOD | {"id": "x"}, GOOD | {"id": "x", "image": "b.png"}))
    with pytest.raises(LabelledSetError, match="no images are listed"):
        read_labelled_set(write(tmp_path / "s"))
    (tmp_path / "none").mkdir()
    with pytest.raises(LabelledSetError, match="no images.jsonl and no CSV"):
        read_labelled_set(tmp_path / "none")
    with pytest.raises(LabelledSetError, match="no such folder"):
        read_labelled_set(tmp_path / "nowhere")


def test_patients_leave_as_numbers(tmp_path):
    rows = [GOOD, GOOD | {"image": "b.png", "patient": "P2"}, GOOD]
    images = read_labelled_set(write(tmp_path / "s", *rows))
    assert patient_numbers(images) == {"P1": "patient-000001", "P2": "patient-000002"}


def test_a_csv_of_ones_own(tmp_path):
    folder = write(tmp_path / "s")
    (folder / "images.jsonl").unlink()
    table = folder / "labels.csv"
    table.write_text("image,patient,modality,effusion,number,side\na.png,P1,DX,yes,2,\nb.png,P2,,No,,left\n")
    one, other = read_labelled_set(folder)
    assert one.labels == {"effusion": "yes", "number": "2"} and one.modality == "DX"
    assert other.labels == {"effusion": "no", "side": "left"} and other.where == f"{table}:3"
    table.write_text("image,patient\na.png,P1,stray\n")
    with pytest.raises(LabelledSetError, match=r"labels\.csv:2: more cells than the 2 columns"):
        read_labelled_set(folder)
    table.write_text("image,side,side\na.png,P1,stray\n")
    with pytest.raises(LabelledSetError, match="stands there twice"):
        read_labelled_set(folder)
    table.write_text("image,patient,qa\na.png,P1,x\n")
    with pytest.raises(LabelledSetError, match="a column 'qa' cannot be read"):
        read_labelled_set(folder)
    (folder / "other.csv").write_text("")
    with pytest.raises(LabelledSetError, match=r"several CSV files \(labels.csv, other.csv\)"):
        read_labelled_set(folder)


def test_chest_xray14_as_it_is_published(tmp_path):
    for name in ("images_001/images/00000001_000.png", "images_002/images/00000002_000.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    table = tmp_path / "Data_Entry_2017.csv"
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age\n"
    table.write_text(
        f"{head}00000001_000.png,Cardiomegaly|Pleural_Thickening,0,1,58\n00000002_000.png,No Finding,0,2,60\n"
    )
    (tmp_path / "test_list.txt").write_text("00000002_000.png\n")
    (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n")
    one, other = read_labelled_set(tmp_path)
    assert {name for name, value in one.labels.items() if value == "yes"} == {"cardiomegaly", "pleural thickening"}
    assert len(one.labels) == 14 and set(other.labels.values()) == {"no"}
    assert (one.modality, one.split, other.split) == ("DX", "train", "test")
    table.write_text(f"{head}00000001_000.png,Cold,0,1,58\n")
    with pytest.raises(LabelledSetError, match="csv:2: unknown finding 'Cold'"):
        read_labelled_set(tmp_path)
    table.write_text(f"{head}x.png,Mass,0,1,58\n")
    with pytest.raises(LabelledSetError, match="csv:2: x.png is neither in images/"):
        read_labelled_set(tmp_path)
