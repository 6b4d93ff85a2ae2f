"""JSON files: spans, lines, broken records."""

import json
import pickle

import pytest

from tests.helpers.data_folders import record, write_records
from training.data.sources import DataError, open_source
from vlm.errors import SampleError


def test_jsonl_folder_with_bad_lines_names_file_and_line(tmp_path):
    write_records(tmp_path / "d", [record("a"), "", '{"id": "b", "messages": [', "[1]", record("c", answer="é✓")])
    source = open_source(tmp_path / "d")
    assert source.format == "jsonl" and len(source) == 4
    assert source[0].id == "a" and source[3].messages[1]["content"][0]["text"] == "é✓"
    with pytest.raises(SampleError, match=r"not JSON.*records.jsonl:3") as error:
        source[1]
    assert error.value.reason == "bad_json"
    with pytest.raises(SampleError, match=r"list.*records.jsonl:4"):
        source[2]
    assert source.where(3) == f"{tmp_path}/d/records.jsonl:5"
    assert pickle.loads(pickle.dumps(source))[3].id == "c"


def test_not_utf8_line_is_one_bad_sample(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(json.dumps(record("a")).encode() + b'\n{"id": "\xff"}\n' + json.dumps(record("b")).encode())
    source = open_source(path)
    assert [source[0].id, source[2].id] == ["a", "b"]
    with pytest.raises(SampleError, match="x.jsonl:2"):
        source[1]


@pytest.mark.parametrize("file, parts", [("x.jsonl", (b"", b"\r\n", b"")), ("x.json", (b"[\r\n", b",\r\n", b"]\r\n"))])
def test_byte_order_mark_and_windows_line_ends(tmp_path, file, parts):
    start, between, end = parts
    records = between.join(json.dumps(record(name)).encode() for name in "abc")
    (tmp_path / file).write_bytes(b"\xef\xbb\xbf" + start + records + end)
    source = open_source(tmp_path / file)
    assert [sample.id for sample in source] == ["a", "b", "c"]
    assert source.where(2).endswith(":3" if file == "x.jsonl" else ":4")


@pytest.mark.parametrize("indent", [None, 2])
def test_llava_json_finds_records_and_their_lines(tmp_path, indent):
    records = [
        {"id": i, "image": "é.png", "conversations": [{"from": "human", "value": f"<image>\nNo {i}, [ö]?"},
                                                     {"from": "gpt", "value": "}],{"}]}
        for i in range(5)
    ]  # fmt: skip
    path = tmp_path / "llava.json"
    path.write_text(json.dumps(records, indent=indent, ensure_ascii=False), encoding="utf-8")
    source = open_source(path)
    assert source.format == "llava_json" and len(source) == 5
    for i, sample in enumerate(source):
        assert sample.id == str(i)
        assert sample.messages[0]["content"] == [
            {"type": "image", "image": "é.png"},
            {"type": "text", "text": f"No {i}, [ö]?"},
        ]
        assert sample.messages[1] == {"role": "assistant", "content": [{"type": "text", "text": "}],{"}]}
    text = path.read_text().split("\n")
    place = source.where(3).rsplit(":")[-1]
    assert place == "1[3]" if indent is None else '"id": 3' in text[int(place)]


@pytest.mark.parametrize("tail", ["", "{", '{"id": 1', "{} {}]", "{}] x", '{"a": nope}]', "{},]"])
def test_broken_llava_json_names_the_line(tmp_path, tail):
    path = tmp_path / "llava.json"
    path.write_text('[\n {"id": 1},\n' + tail)
    with pytest.raises(DataError, match=r"llava.json:3: this is not JSON"):
        open_source(path)


def test_detection_says_what_it_found_and_knows(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "notes.txt").write_text("x")
    with pytest.raises(
        DataError,
        match=r"none of the known data formats \(hf_dataset, hf_hub, image_folder, jsonl, llava_json, tar_shards\); "
        "it holds notes.txt",
    ):
        open_source(tmp_path / "d")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="no records"):
        open_source(tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match="unknown data format 'csv', known: "):
        open_source({"path": tmp_path, "format": "csv"})
    with pytest.raises(DataError, match="unknown key 'wieght'.*weight"):
        open_source({"path": tmp_path, "wieght": 2})


def test_records_on_one_line_are_told_apart(tmp_path):
    """As json.dump writes a list."""
    turns = [[{"from": "human", "value": f"q{i}"}, {"from": "gpt", "value": "a"}] for i in range(3)]
    records = [{"conversations": one} for one in turns]
    (tmp_path / "one.json").write_text(json.dumps(records))
    (tmp_path / "lines.json").write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]")
    one, lines = open_source(tmp_path / "one.json"), open_source(tmp_path / "lines.json")
    assert [one.where(i).rpartition("/")[2] for i in range(3)] == ["one.json:1[0]", "one.json:1[1]", "one.json:1[2]"]
    assert [sample.id for sample in one] == ["one:1[0]", "one:1[1]", "one:1[2]"]
    assert [lines.where(i).rpartition("/")[2] for i in range(3)] == ["lines.json:2", "lines.json:3", "lines.json:4"]


def test_a_column_that_is_not_there_takes_nothing_away(tmp_path):
    write_records(tmp_path, [json.dumps({"question": "q", "label": "a"})])
    good = open_source({"path": tmp_path, "columns": {"question": "query", "answer": "label"}})
    assert good[0].messages[0]["content"][0]["text"] == "q"
    with pytest.raises(SampleError, match=r"the keys are \['label', 'question'\].*`columns"):
        open_source({"path": tmp_path, "columns": {"answer": "lable"}})[0]
