"""Hugging Face datasets: saved folders, splits, parquet; pictures inside or beside the table; corrupt ones."""

import io

import pytest
from PIL import Image

from tests.helpers.data_folders import record, write_image
from training.data.sources import DataError, open_source
from vlm.errors import SampleError

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
    picture = sample.messages[0]["content"][0]["image"]
    assert isinstance(picture, Image.Image) and picture.getpixel((0, 0)) == (1, 0, 0)
    assert sample.messages[0]["content"][1]["text"] == "Q1" and sample.messages[1]["content"][0]["text"] == "A1"
    assert sample.meta == {"license": "MIT"} and sample.resolved_messages() == sample.messages
    with pytest.raises(SampleError, match=r"Pillow.*\[2\]"):
        source[2]


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
