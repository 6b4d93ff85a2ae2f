"""The medical corpus: valid DICOM, same seed same files, disjoint splits, and conversations of the declared forms."""

import json
import random
from collections import Counter

import numpy as np
import pytest

from training.data.synthetic import medical, medical_text
from training.data.synthetic.slices import WINDOWS, random_slice
from training.data.synthetic.split_hash import split_of
from vlm.experts import get_expert, parse_trigger

pydicom = pytest.importorskip("pydicom", reason="optional package absent: pydicom")


def rows_of(out):
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


def texts(message):
    return "".join(item["text"] for item in message["content"] if item["type"] == "text")


@pytest.fixture(scope="module")
def test_corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("test")
    medical.write(out, "test", 5, 96)
    return out


@pytest.fixture(scope="module")
def train_corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("train")
    medical.write(out, "train", 5, 200)
    return out


def test_test_records_hold_one_question_and_no_card(test_corpus):
    rows = rows_of(test_corpus)
    kinds = Counter(row["meta"]["kind"] for row in rows)
    assert kinds == {"side": 24, "size": 24, "number": 24, "window": 8, "table": 8, "modality": 8}
    for row in rows:
        user, assistant = row["messages"]
        assert texts(user) == medical_text.QUESTIONS[row["meta"]["kind"]]
        assert [texts(assistant)] == row["meta"]["answers"]
        assert (row["meta"]["expert"] == "LESIONS") == (row["meta"]["kind"] in medical.KINDS)


def test_files_are_valid_ct_and_name_no_patient(test_corpus):
    for row in rows_of(test_corpus)[:12]:
        data = pydicom.dcmread(test_corpus / row["messages"][0]["content"][0]["image"])
        assert data.file_meta.MediaStorageSOPClassUID == pydicom.uid.CTImageStorage == data.SOPClassUID
        assert data.SOPInstanceUID.is_valid and data.Modality == "CT"
        assert data.PatientID.startswith("SYNTHETIC-") and data.PatientIdentityRemoved == "YES"
        hu = pydicom.pixels.apply_rescale(data.pixel_array, data)
        assert hu.shape == (96, 96) and -1024 <= hu.min() < -900 and 100 < hu.max() < 1000
        assert (data.WindowCenter, data.WindowWidth) in WINDOWS.values()
        assert pydicom.pixels.apply_voi_lut(hu, data).shape == (96, 96)


def test_the_expert_gives_the_answers_of_the_corpus(test_corpus):
    expert = get_expert("LESIONS")()
    for row in rows_of(test_corpus):
        if row["meta"]["expert"]:
            result = expert.run(test_corpus / row["messages"][0]["content"][0]["image"], ())
            answer = row["meta"]["answers"][0]
            kind = row["meta"]["kind"]
            wanted = {"side": f" {answer}, ", "size": f" {answer} mm", "number": f"{answer} lesion"}[kind]
            assert wanted in result.text


def test_training_conversations_have_the_four_forms(train_corpus):
    forms = Counter()
    expert = get_expert("LESIONS")()
    for row in rows_of(train_corpus):
        messages, lesion = row["messages"], row["meta"]["expert"] is not None
        offered = texts(messages[0]).startswith("Experts:\n<LESIONS()>")
        called = len(messages) == 4
        forms[offered, lesion, called] += 1
        assert texts(messages[-1]) == row["meta"]["answers"][0]
        if called:
            assert parse_trigger(texts(messages[1])).name == "LESIONS"
            image = next(item["image"] for item in messages[0]["content"] if item["type"] == "image")
            assert texts(messages[2]).split("\n")[0] == expert.run(train_corpus / image, ()).text
            assert texts(messages[2]).split("\n")[1] == medical_text.QUESTIONS[row["meta"]["kind"]]
    assert set(forms) == {(True, True, True), (True, False, False), (False, True, False), (False, False, False)}


def test_same_seed_same_bytes(test_corpus, tmp_path):
    medical.write(tmp_path / "again", "test", 5, 8)
    medical.write(tmp_path / "other", "test", 6, 8)
    for index in range(8):
        name = f"dicom/{index:06d}.dcm"
        assert (test_corpus / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert (test_corpus / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_contents_of_the_splits_are_disjoint(tmp_path, monkeypatch):
    contents: dict[str, set] = {}

    def record(path, hu, item, number, series):
        contents.setdefault(series.split("-")[0], set()).add(item.content())

    monkeypatch.setattr(medical, "write_dicom", record)
    for split in ("train", "val", "test"):
        medical.write(tmp_path / split, split, 1, 120)
        assert all(split_of(repr(content)) == split for content in contents[split])
    assert not contents["train"] & contents["test"] and not contents["train"] & contents["val"]
    assert not contents["val"] & contents["test"]


def test_lesions_are_beyond_doubt():
    rng = random.Random(0)
    for _ in range(200):
        item = random_slice(rng, 96, 3)
        first, second, _ = item.lesions
        assert first.mm - second.mm >= 4 and 12 <= first.mm <= 40
        radii = [lesion.mm / item.spacing / 2 for lesion in item.lesions]
        assert all(abs(lesion.x - 48) > radius for lesion, radius in zip(item.lesions, radii))
        for i in range(3):
            for j in range(i):
                a, b = item.lesions[i], item.lesions[j]
                assert np.hypot(a.x - b.x, a.y - b.y) > radii[i] + radii[j] + 2


def test_look_up_dialogues_answer_from_the_result():
    rng, called = random.Random(0), Counter()
    for _ in range(200):
        messages = medical_text.random_lookup(rng)
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        if trigger := parse_trigger(texts(messages[1])):
            called[trigger.name, len(trigger.arguments)] += 1
            assert f"<{trigger.name}(" in texts(messages[0])
            assert not trigger.arguments or f"{trigger.arguments[0]}?" in texts(messages[0])
            messages = messages[2:]
        text = texts(messages[0])
        for answer in messages[1::2]:
            assert texts(answer) in text or (text.startswith("error: ") and texts(answer) == "unknown")
    assert set(called) == {("LESIONS", 0), ("FINDINGS", 0), ("FINDINGS", 1)}


def test_bad_options_are_errors(tmp_path):
    with pytest.raises(ValueError, match="size must be at least 64"):
        medical.write(tmp_path, "test", 0, 1, size=32)
    with pytest.raises(ValueError, match="split"):
        medical.write(tmp_path, "exam", 0, 1)
