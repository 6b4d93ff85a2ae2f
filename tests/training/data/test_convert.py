"""Label files -> LLaVA JSON and a held-out part; the same conversations as before, no picture in both."""

import json

import pytest

from tests.helpers.data_folders import write_image, write_records
from tests.helpers.shared import shared_path
from tests.helpers.tiny_processor import tiny_processor
from training.data.check import check
from training.data.convert import convert
from training.data.sources import DataError, open_source


def labels(folder, pictures=8, questions=3):
    rows = []
    for i in range(pictures):
        write_image(folder / f"images/{i}.png", color=(i, 0, 0))
        for j in range(questions):
            rows.append(
                {
                    "id": f"p{i}q{j}",
                    "image": f"images/{i}.png",
                    "question": f"{j}?",
                    "answers": ["A", "B"],
                    "metric": "anls",
                }
            )
    write_records(
        folder, [*rows, {"id": "lost", "image": "images/none.png", "question": "?", "answers": ["A"]}], "labels.jsonl"
    )
    return folder / "labels.jsonl"


def test_both_parts_read_back_alike(tmp_path):
    path = labels(tmp_path / "d")
    counts = convert(path, tmp_path / "out", test_share=0.25, task="mine")
    assert counts == {"train": 18, "test": 6, "skipped": 1}
    before = {sample.id: sample for sample in list(open_source(path))}
    train, test = open_source(tmp_path / "out/train"), open_source(tmp_path / "out/test")
    assert (train.format, test.format) == ("llava_json", "jsonl")
    for sample in [*train, *test]:
        assert sample.messages == before[sample.id].messages and sample.meta["answers"] == ["A", "B"]
    pictures = [{reference for sample in part for _, reference in sample.media()} for part in (train, test)]
    assert len(pictures[0]) == 6 and len(pictures[1]) == 2 and not pictures[0] & pictures[1]
    assert test[0].meta["task"] == "mine" and test[0].meta["group"] in pictures[1] and test[0].meta["kind"] == "anls"
    assert json.loads((tmp_path / "out/test/dataset.json").read_text())["n"] == 6
    assert check([tmp_path / "out/train", tmp_path / "out/test"], tiny_processor(), max_length=500).ok


def test_odd_paths_stay_inside_the_copy_and_one_picture_in_one_part(tmp_path):
    """Absolute paths, detours and links that are allowed in the source must not lead out of what is written."""
    folder, out = tmp_path / "d", tmp_path / "out"
    for i in range(4):
        write_image(folder / f"images/{i}.png", color=(i, 0, 0))
    (folder / "link.png").symlink_to(folder / "images/3.png")
    spellings = ["../d/images/0.png", "images/0.png", str(folder / "images/1.png"), "images/./1.png", "images/2.png",
                 "link.png", "images/3.png"]  # fmt: skip
    rows = [{"id": i, "image": path, "question": "?", "answers": ["A"]} for i, path in enumerate(spellings)]
    write_records(folder, rows, "labels.jsonl")
    before = sorted(tmp_path.rglob("*"))
    convert(folder / "labels.jsonl", out, test_share=0.5)
    assert not [path for path in tmp_path.rglob("*") if path not in before and path != out and
                not path.is_relative_to(out / "train") and not path.is_relative_to(out / "test")]  # fmt: skip
    assert check([out / "train", out / "test"]).ok
    parts = [{ref for sample in open_source(out / part) for _, ref in sample.media()} for part in ("train", "test")]
    assert parts[0] | parts[1] == {f"images/{i}.png" for i in range(4)} and not parts[0] & parts[1]


def test_pictures_without_a_file_are_refused_in_words(tmp_path):
    datasets = pytest.importorskip("datasets", reason="optional package absent: datasets")
    row = {"bytes": write_image(tmp_path / "a.png").read_bytes(), "path": None}
    data = datasets.Dataset.from_dict({"id": ["a"], "image": [row], "question": ["?"], "answers": [["A"]]})
    data.cast_column("image", datasets.Image()).to_parquet(str(tmp_path / "d.parquet"))
    with pytest.raises(DataError, match="nothing to train on .0 usable"):
        convert(tmp_path / "d.parquet", tmp_path / "out")


def test_split_follows_the_seed(tmp_path):
    path = labels(tmp_path / "d")
    parts = []
    for name, seed in (("a", 0), ("b", 0), ("c", 2)):
        convert(path, tmp_path / name, seed=seed)
        parts.append([sample.id for sample in open_source(tmp_path / name / "test")])
    assert parts[0] == parts[1] != parts[2]


def test_refusals(tmp_path):
    path = labels(tmp_path / "d", pictures=1)
    with pytest.raises(DataError, match="nothing to train on"):
        convert(path, tmp_path / "out")
    assert convert(path, tmp_path / "out", test_share=0)["test"] == 0
    with pytest.raises(DataError, match="is not empty"):
        convert(path, tmp_path / "out", test_share=0)
    with pytest.raises(DataError, match="test_share"):
        convert(path, tmp_path / "new", test_share=1)


@pytest.mark.parametrize("name", ["sroie_receipts", "pubtabnet", "charts", "videos", "dicom", "misc_docs"])
def test_real_data_is_in_order(tmp_path, name):
    """Real receipts, tables, charts, videos and DICOM files go through the converter and the check with a processor."""
    folder = shared_path(f"data/{name}")
    counts = convert(folder / "labels.jsonl", tmp_path / name)
    assert counts["train"] and counts["test"]
    parts = [{"path": tmp_path / name / part, "limit": 30} for part in ("train", "test")]
    report = check(parts, tiny_processor(max_num_patches=256))
    expected = {"dicom": {"missing_codec"}}.get(name, set())  # compressions that need a further package
    assert set(report.reasons()) <= expected, report.problems
    assert sum(one.samples for one in report.sources) == min(counts["train"], 30) + min(counts["test"], 30)
