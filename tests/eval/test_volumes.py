"""Volumes in evaluation: read, hashed by content, kept, exchanged, and shown as slices."""

import json
import shutil

import pytest

from eval.controls import choose_donors, exchange_media
from eval.data import MEDIA_KINDS, media_items, read_dataset, without_media
from eval.hashing import input_hash
from eval.media_store import MediaStore
from eval.report.pictures import SLICES, is_volume, still, volume_slices
from eval.report.samples import card
from tests.helpers.medical_files import body, write_enhanced, write_nifti, write_series
from vlm.media_types import MEDIA_TYPES

pytest.importorskip("pydicom", reason="optional package absent: pydicom")
pytest.importorskip("nibabel", reason="optional package absent: nibabel")


@pytest.fixture
def folder(tmp_path):
    """Two series, two sequences of an MRI, and questions about them in every form."""
    folder = tmp_path / "d"
    for seed, name in enumerate(("left", "right")):
        write_series(folder / name, body((32, 32, 6), seed=seed))
        write_nifti(folder / f"t{seed + 1}.nii.gz", body((32, 32, 6), seed=seed))
    items = [{"type": "volume", "volume": "left", "window": "lung"}, {"type": "text", "text": "Side?"}]
    rows = [
        {"id": "m", "messages": [{"role": "user", "content": items}], "meta": {"answers": ["left"]}},
        {"id": "q", "question": "Side?", "answer": "right", "volume": "right"},
        {"id": "l", "volume": {"volume": "left", "slices": 2}, "meta": {"kind": "llava"},
         "conversations": [{"from": "human", "value": "<volume>\nWhat?"}, {"from": "gpt", "value": "A"}]},
        {"id": "mri", "question": "Sequence?", "answer": "t1", "volume": {"t1": "t1.nii.gz", "t2": "t2.nii.gz"}},
        {"id": "out", "question": "Q", "answer": "A", "volume": "../secret"},
        {"id": "link", "question": "Q", "answer": "A", "volume": "linked"},
        {"id": "paper", "question": "Which <volume>?", "answer": "7", "volume": 7},
    ]  # fmt: skip
    (folder / "linked").mkdir()
    (tmp_path / "secret.dcm").write_bytes(b"x")
    (folder / "linked/a.dcm").symlink_to(tmp_path / "secret.dcm")
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_the_kinds_are_those_of_the_processor():
    assert MEDIA_KINDS == MEDIA_TYPES


def test_records_of_every_form(folder):
    samples = {sample.id: sample for sample in read_dataset(folder).samples}
    assert samples["m"].media == samples["l"].media == [str(folder / "left")]
    assert media_items(samples["l"].messages) == [{"type": "volume", "volume": str(folder / "left"), "slices": 2}]
    assert samples["mri"].media == [str(folder / "t1.nii.gz"), str(folder / "t2.nii.gz")]
    assert samples["paper"].media == [] and "<volume>" in samples["paper"].question
    assert {name for name, sample in samples.items() if sample.problem} == {"out", "link"}
    assert "leaves the data folder" in samples["out"].problem and "outside the data folder" in samples["link"].problem
    assert not media_items(without_media(samples["m"]).messages) and samples["m"].question == "Side?"


def test_the_input_is_known_by_its_content(folder):
    samples = {sample.id: sample.prompt for sample in read_dataset(folder).samples}
    before = {name: input_hash(samples[name]) for name in ("m", "q", "l", "mri")}
    assert len(set(before.values())) == 4
    moved = folder.parent / "moved"
    shutil.copytree(folder / "left", moved / "left")
    for number, file in enumerate(sorted((moved / "left").iterdir())):
        file.rename(file.with_name(f"{number:02d}.dcm"))
    shutil.copy(folder / "records.jsonl", moved)
    again = {sample.id: sample.prompt for sample in read_dataset(moved).samples}
    assert input_hash(again["m"]) == before["m"], "the same slices under other names"
    next((moved / "left").iterdir()).unlink()
    assert input_hash(again["m"]) != before["m"]
    shutil.copy(folder / "t2.nii.gz", folder / "t1.nii.gz")
    assert input_hash(samples["mri"]) != before["mri"]


def test_volumes_are_exchanged_whole(folder):
    samples = read_dataset(folder).samples
    asked, donor = samples[0], choose_donors(samples, seed=0)[0]
    assert donor.id == "q"
    content = exchange_media(asked, donor)[0]["content"]
    assert content == [{"type": "volume", "volume": str(folder / "right")}, {"type": "text", "text": "Side?"}]


def test_the_store_keeps_files_and_points_at_folders(folder, tmp_path):
    store = MediaStore(tmp_path / "store")
    nifti, multi = (folder / "t1.nii.gz").read_bytes(), write_enhanced(tmp_path / "m", body()).read_bytes()
    plain = write_nifti(tmp_path / "a.nii", body()).read_bytes()
    for data, suffix in ((nifti, ".nii.gz"), (multi, ".dcm"), (plain, ".nii")):
        path = store.save({"bytes": data, "path": None})
        assert path.endswith(suffix) and open(path, "rb").read() == data
    assert store.save(folder / "left", folder=True) == str(folder / "left")
    with pytest.raises(ValueError, match="no such file"):
        store.save(folder / "left")


def test_cards_show_slices(folder):
    row = {"id": "m", "task": "t", "kind": "all", "question": "Side?", "answers": ["left"], "output": "left",
           "score": 1, "error": None, "control": None, "calls": [{"name": "LESIONS", "ok": True}]}  # fmt: skip
    for name in ("left", "t1.nii.gz"):
        page = card({**row, "media": [str(folder / name)]}, [])
        assert page.count("<img") == SLICES and is_volume(str(folder / name))
        assert still(str(folder / name)).size == volume_slices(str(folder / name))[0].size == (32, 48)
    assert "not available" in card({**row, "media": [str(folder / "linked")]}, [])
