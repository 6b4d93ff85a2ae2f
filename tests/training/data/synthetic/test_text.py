"""The text corpus: no media, answers stand in the note, splits share no pair, repeatable."""

import json

from training.data.synthetic.registry import get_corpus


def read(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def test_records(tmp_path):
    write = get_corpus("text")
    pairs = {}
    for split in ("train", "val", "test"):
        write(tmp_path / split, split, 0, 60)
        for record in read(tmp_path / split):
            items = [i for m in record["messages"] if not isinstance(m["content"], str) for i in m["content"]]
            assert all(item["type"] == "text" for item in items)
            if record["meta"]["kind"] == "findings":
                assert split == "train"
                continue
            note = record["messages"][0]["content"][0]["text"]
            assert all(m["content"][0]["text"] in note for m in record["messages"][1::2])
            assert split == "train" or len(record["messages"]) == 2
            for line in note.split("\n"):
                if len(line) == 6 and line[3] == " ":
                    assert pairs.setdefault(line, split) == split
    write(tmp_path / "again", "train", 0, 60)
    assert read(tmp_path / "again") == read(tmp_path / "train")
