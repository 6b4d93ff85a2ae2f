"""Hugging Face datasets: saved folders, splits, parquet; pictures inside or beside the table; corrupt ones."""

import io

import pytest
from PIL import Image

from tests.helpers.data_folders import record, write_image
from training.data.hf_loading import without_bytes
from training.data.lengths import Sizer, estimated_lengths
from training.data.mixture import Mixture
from training.data.sources import DataError, open_source
from vlm.errors import SampleError
from vlm.media import load_image

datasets = pytest.importorskip("datasets", reason="optional package absent: datasets")


def png(color):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def table():
    rows = {
        "texts": [[{"user": f"Q{i}", "assistant": f"A{i}"}] for i in range(3)],
        "images": [[{"bytes": png((i, 0, 0)), "path": None}] for i in range(2)]
        + [[{"bytes": b"broken", "path": None}]],
        "license": ["MIT"] * 3,
    }
    features = datasets.Features(
        {
            "texts": [{"user": datasets.Value("string"), "assistant": datasets.Value("string")}],
            "images": datasets.List(datasets.Image()),
            "license": datasets.Value("string"),
        }
    )
    return datasets.Dataset.from_dict(rows, features=features)


def check_table(source):
    assert source.format == "hf_dataset" and len(source) == 3
    sample = source[1]
    picture = load_image(sample.resolved_messages()[0]["content"][0]["image"])
    assert picture.getpixel((0, 0)) == (1, 0, 0)
    assert sample.messages[0]["content"][1]["text"] == "Q1" and sample.messages[1]["content"][0]["text"] == "A1"
    assert sample.meta == {"license": "MIT"}
    broken = source[2]  # pictures stay bytes until a sample is encoded
    assert broken.origin.endswith("[2]")
    with pytest.raises(SampleError, match="Pillow"):
        load_image(broken.resolved_messages()[0]["content"][0]["image"])


def test_saved_folder(tmp_path, table):
    table.save_to_disk(tmp_path / "d")
    check_table(open_source(tmp_path / "d"))


def test_splits(tmp_path, table):
    datasets.DatasetDict({"train": table, "val": table.select([0])}).save_to_disk(tmp_path / "d")
    check_table(open_source({"path": tmp_path / "d", "split": "train"}))
    assert len(open_source({"path": tmp_path / "d", "split": "val"})) == 1
    with pytest.raises(DataError, match="has the splits train, val: choose one"):
        open_source(tmp_path / "d")


@pytest.mark.parametrize("inner", ["", "data"])
def test_parquet_file_and_folder(tmp_path, table, inner):
    (tmp_path / "d" / inner).mkdir(parents=True)
    table.to_parquet(tmp_path / "d" / inner / "train-00000.parquet")
    check_table(open_source(tmp_path / "d"))
    check_table(open_source({"path": tmp_path / "d", "split": "train"}))
    with pytest.raises(DataError, match="the split 'val'"):
        open_source({"path": tmp_path / "d", "split": "val"})


def test_messages_with_paths(tmp_path):
    write_image(tmp_path / "d/images/a.png")
    rows = [record("x", images=("images/a.png",)), record("y", images=("../secret.png",))]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "d")
    source = open_source(tmp_path / "d")
    assert [sample.id for sample in source] == ["x", "y"]
    assert source[0].resolved_messages()[0]["content"][0] == {
        "type": "image",
        "image": str(tmp_path / "d/images/a.png"),
    }
    with pytest.raises(SampleError, match="leaves the data folder"):
        source[1].resolved_messages()


def test_broken_table(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as a Hugging Face dataset"):
        open_source(tmp_path / "x.parquet")


def hub_clone(folder):
    """A repository of the hub as it lies on disk: two subsets, one of them with two splits."""
    for subset, splits in (("a", ("train", "test")), ("b", ("train",))):
        for split in splits:
            (folder / subset).mkdir(parents=True, exist_ok=True)
            rows = [{"query": f"{subset} {split} {i}?", "label": str(i)} for i in range(3)]
            datasets.Dataset.from_list(rows).to_parquet(folder / subset / f"{split}-00000-of-00001.parquet")
    lines = ["---", "configs:"]
    for subset in "ab":
        lines += [f"- config_name: {subset}", "  data_files:"]
        for split in ("train", "test") if subset == "a" else ("train",):
            lines += [f"  - split: {split}", f"    path: {subset}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


COLUMNS = {"question": "query", "answer": "label"}


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """`hf://org/name` finds the clone in the current folder, as `load_dataset` does; the hub is out of reach."""
    hub_clone(tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("path", ["hf://org/name", "org/name"])
def test_subset_split_and_columns(offline, path):
    source = open_source({"path": path, "subset": "a", "split": "test", "columns": COLUMNS})
    assert source.format == ("hf_hub" if path.startswith("hf") else "hf_dataset") and len(source) == 3
    assert source.name == ("org/name" if path.startswith("hf") else "name")
    turns = [item["text"] for message in source[1].messages for item in message["content"]]
    assert turns == ["a test 1?", "1"] and source[1].meta == {"answer": "1"}
    assert len(open_source({"path": path, "subset": "b", "columns": COLUMNS})) == 3  # its only split


@pytest.mark.parametrize(
    "more, words",
    [
        ({}, r"it has the subsets a, b: choose one with `subset:`, got None"),
        ({"subset": "c"}, r"it has the subsets a, b: choose one with `subset:`, got 'c'"),
        ({"subset": "a"}, r"has the splits train, test: choose one with `split:`"),
        ({"subset": "a", "split": "val"}, r"it has the splits train, test: choose one with `split:`, got 'val'"),
    ],
)
def test_what_is_missing_is_answered_with_what_there_is(offline, more, words):
    for path in ("hf://org/name", "org/name"):
        with pytest.raises(DataError, match=words):
            open_source({"path": path, **more})


def test_hub_out_of_reach(offline):
    with pytest.raises(DataError, match="(?s)hf://org/other cannot be read.*HF_HUB_OFFLINE is set"):
        open_source("hf://org/other")


def guessed(source) -> list[int]:
    """The slow twin of `estimated_lengths` for many samples: every row is read as it is."""
    found = []
    for index in range(len(source)):
        try:
            found.append(Sizer(None)(source[index]))
        except SampleError:
            found.append(0)
    return found


@pytest.mark.parametrize("block", [512, 3])
def test_lengths_of_many_rows_are_guessed_without_reading_their_pictures(tmp_path, monkeypatch, block):
    picture = {"bytes": png(0), "path": None}
    turn = {"role": "user", "content": [{"type": "image", "image": picture, "text": None}]}
    say = {"role": "assistant", "content": [{"type": "text", "image": None, "text": "a longer answer than others"}]}
    shapes = [
        {"question": "One picture?", "answer": "yes", "images": [picture], "raw": b"raw"},
        {"question": "Two of them?", "answer": "yes", "images": [picture, picture]},
        {"question": "None, or an empty list?", "answer": "both", "images": []},
        {"question": "A path", "answer": "too", "images": [{"bytes": None, "path": "a.png"}, None]},
        {"messages": [turn, say]},
        {"question": "no answer"},
        {"messages": [{**turn, "role": "nobody"}]},
    ]
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    keys = dict.fromkeys(key for shape in shapes for key in shape)
    rows = [{**keys, **shape} for shape in shapes * 2]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet", row_group_size=4)
    source, mixed = open_source(tmp_path / "d.parquet"), Mixture([{"path": tmp_path / "d.parquet", "limit": 11}])
    monkeypatch.setattr("training.data.sources.hf_dataset.BLOCK", block)
    monkeypatch.setattr("training.data.lengths.LOOK_CLOSER_UP_TO", 0)
    wanted = guessed(source)
    assert wanted[0] > 256 and wanted[1] > 512 and wanted[4] > 256 and wanted[5:7] == [0, 0]
    assert estimated_lengths(source, None).tolist() == wanted
    assert estimated_lengths(mixed, None).tolist() == wanted[:11]
    for index, outline in enumerate(source.outlines()):
        if outline is not None:
            whole = source[index]
            seen, there = ([item.get("image", {}) for item in one.media_items()] for one in (outline, whole))
            assert seen == [{**one, "bytes": one["bytes"] and b""} if one else one for one in there]
            assert (outline.id, outline.origin, outline.template) == (whole.id, whole.origin, whole.template)


def test_rows_without_bytes_are_those_of_arrow():
    """Values of every nesting, in slices that begin anywhere."""
    pyarrow = pytest.importorskip("pyarrow")
    rows = [
        {"a": 1, "s": "x", "l": [[1, None], [], None], "m": [{"b": b"12", "n": {"c": b"3", "d": 4.0}}, None]},
        {"a": None, "s": None, "l": None, "m": None},
        {"a": 2, "s": "", "l": [], "m": [{"b": None, "n": None}]},
        {"a": 3, "s": "z", "l": [[5]], "m": []},
    ]
    whole = pyarrow.concat_tables([pyarrow.Table.from_pylist(rows), pyarrow.Table.from_pylist(rows)])

    def emptied(value):
        if isinstance(value, dict):
            return {key: emptied(one) for key, one in value.items()}
        if isinstance(value, list):
            return [emptied(one) for one in value]
        return b"" if isinstance(value, bytes) else value

    for start in range(8):
        for length in range(9 - start):
            part = whole.slice(start, length)
            assert without_bytes(part) == emptied(part.to_pylist())
