"""Picture folders: side files, metadata.csv, and what a bare folder is told; folders of others are left alone."""

import json

import pytest

from tests.helpers.data_folders import good_folder, record, write_image, write_records
from training.data.sources import DataError, open_source
from training.data.sources.image_folder import ImageFolderSource
from vlm.errors import SampleError


def words(sample):
    return [
        "".join(item.get("text", f"<{item['type']}>") for item in message["content"]) for message in sample.messages
    ]


def test_side_files_in_sub_folders(tmp_path):
    folder = tmp_path / "d"
    for name in ("a.png", "deep/er/b.jpg", "c.png", "d.png", "without.png", ".hidden.png"):
        write_image(folder / name)
    (folder / "a.txt").write_text(" a caption\n")
    (folder / "deep/er/b.json").write_text(json.dumps({"question": "Q?", "answer": "A", "licence": "MIT"}))
    (folder / "c.json").write_text(json.dumps({"width": 3}))
    (folder / "c.txt").write_text("c caption")
    (folder / "d.json").write_text("{")
    source = open_source(folder)
    assert source.format == "image_folder" and len(source) == 4
    assert [words(source[i]) for i in (0, 1, 3)] == [
        ["<image>", "a caption"],
        ["<image>", "c caption"],
        ["<image>Q?", "A"],
    ]
    assert source[3].meta["licence"] == "MIT" and source[3].id == "deep/er/b.jpg"
    assert source[3].origin == str(folder / "deep/er/b.json")
    assert source[3].resolved_messages()[0]["content"][0]["image"] == str(folder / "deep/er/b.jpg")
    with pytest.raises(SampleError, match="d.json") as error:
        source[2]
    assert error.value.reason == "bad_json"


def test_metadata_csv_with_columns(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / "d" / "images" / f"{name}.png")
    lines = [
        "path,query,label,source",
        'images/a.png,"How, many?",3,',
        "images/b.png,Which?,x,there",
        "../../etc/x.png,Q,A,",
    ]
    (tmp_path / "d" / "metadata.csv").write_text("\n".join(lines) + "\n")
    columns = {"file_name": "path", "question": "query", "answer": "label"}
    source = open_source({"path": tmp_path / "d", "columns": columns})
    assert source.format == "image_folder" and [words(sample) for sample in source][:2] == [
        ["<image>How, many?", "3"],
        ["<image>Which?", "x"],
    ]
    assert source.where(1) == f"{tmp_path}/d/metadata.csv:3" and [sample.source for sample in source][:2] == [
        "d",
        "there",
    ]
    with pytest.raises(SampleError, match="leaves the data folder"):
        source[2].resolved_messages()


def test_links_do_not_lead_out_of_the_folder(tmp_path):
    write_image(tmp_path / "outside" / "o.png")
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    write_image(tmp_path / "d" / "a.png")
    (tmp_path / "d" / "a.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    (tmp_path / "d" / "b.png").symlink_to(tmp_path / "outside" / "o.png")
    (tmp_path / "d" / "b.txt").write_text("b")
    (tmp_path / "d" / "linked").symlink_to(tmp_path / "outside")
    source = open_source(tmp_path / "d")
    assert len(source) == 2
    with pytest.raises(SampleError, match="leaves the data folder"):
        source[0]
    with pytest.raises(SampleError, match="leaves the data folder"):
        source[1].resolved_messages()


def test_a_bare_folder_is_told_what_it_lacks(tmp_path):
    write_image(tmp_path / "cats" / "1.png")
    with pytest.raises(DataError, match=r"1 pictures but no words.*a\.txt.*metadata\.csv.*not taken for classes"):
        open_source(tmp_path)


def test_folders_of_other_formats_are_left_alone(tmp_path):
    good_folder(tmp_path / "records", 3)
    write_records(tmp_path / "jsonl", [record("a")], name="x.jsonl")
    write_image(tmp_path / "jsonl" / "a.png")
    write_image(tmp_path / "llava" / "images" / "a.png")
    (tmp_path / "llava" / "train.json").write_text(json.dumps([record("a", images=("images/a.png",))]))
    write_image(tmp_path / "parquet" / "a.png")
    (tmp_path / "parquet" / "x.parquet").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name in ("records", "jsonl", "llava", "parquet", "empty", "nowhere"):
        assert not ImageFolderSource.claims(tmp_path / name), name
    assert [open_source(tmp_path / name).format for name in ("records", "jsonl", "llava")] == [
        "jsonl",
        "jsonl",
        "llava_json",
    ]
