"""The documents corpus: repeatable, balanced, no content shared by two splits, pages show what their records say."""

import json
import random

import pytest
from PIL import Image

from training.data.synthetic.documents import LABELS, VALUES, allowed_values, make_page, make_record, write
from training.data.synthetic.pages.canvas import FONTS, HEIGHT, JITTER, WIDTH
from training.data.synthetic.pages.registry import known_layouts, register_layout
from training.data.synthetic.registry import get_corpus, known_corpora, register_corpus
from training.data.synthetic.split_hash import SHARES, split_of

LAYOUTS = [layout for layouts in known_layouts().values() for layout in layouts]


def read(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def test_the_task_is_not_shrunk():
    kinds = known_layouts()
    assert set(kinds) >= {"receipt", "form", "table", "bar_chart"}
    assert all(len(layouts) >= 2 for layouts in kinds.values())
    assert all(layout.fields >= 3 for layout in LAYOUTS)
    assert len(FONTS) >= 3 and JITTER >= 2 and min(map(len, VALUES)) >= 2 and len(LABELS) >= 8


def test_same_seed_same_bytes_and_two_processes_agree(tmp_path):
    write(tmp_path / "a", "train", 3, 10)
    write(tmp_path / "b", "train", 3, 10, processes=2)
    write(tmp_path / "c", "train", 4, 10)
    assert (tmp_path / "a/records.jsonl").read_bytes() == (tmp_path / "b/records.jsonl").read_bytes()
    assert (tmp_path / "a/records.jsonl").read_bytes() != (tmp_path / "c/records.jsonl").read_bytes()
    for image in (tmp_path / "a/images").iterdir():
        assert image.read_bytes() == (tmp_path / "b/images" / image.name).read_bytes()


def test_test_records_ask_one_question_and_kinds_are_balanced(tmp_path):
    write(tmp_path, "test", 0, 40)
    records = read(tmp_path)
    kinds = [record["meta"]["kind"] for record in records]
    assert {kinds.count(kind) for kind in known_layouts()} == {10}
    about = json.loads((tmp_path / "dataset.json").read_text())
    assert about["n"] == 40 and about["split"] == "test" and about["task"] == "documents"
    for record in records:
        user, assistant = record["messages"]
        assert [item["type"] for item in user["content"]] == ["image", "text"]
        assert record["meta"]["answers"] == [assistant["content"][0]["text"]]
        asked = user["content"][1]["text"].rstrip("?")
        assert dict(record["meta"]["fields"])[asked] == record["meta"]["answers"][0]
        assert Image.open(tmp_path / user["content"][0]["image"]).size == (WIDTH, HEIGHT)


def test_splits_share_no_content():
    seen = {}
    for split in SHARES:
        for index in range(400):
            meta = make_record(split, 0, index, 0.5)[0]["meta"]
            for label, value in meta["fields"]:
                triple = (meta["kind"], meta["layout"], label, value)
                assert seen.setdefault(triple, split) == split


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.kind}-{layout.name}")
def test_every_split_has_values_for_every_label(layout):
    for label in LABELS:
        parts = [allowed_values(layout.kind, layout.name, label, split) for split in SHARES]
        assert all(parts) and sorted(sum(parts, ())) == sorted(VALUES)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.kind}-{layout.name}")
def test_everything_written_lies_on_the_page(layout):
    for seed in range(60):
        page, fields = make_page(random.Random(seed), layout, "train")
        words = "".join(char for char, _, _ in page.marks)
        assert all(label in words and value in words for label, value in fields)
        assert all(0 < x < WIDTH and 4 < y < HEIGHT - 4 for _, x, y in page.marks)


def test_registries_refuse_duplicates_and_list_the_known():
    assert "documents" in known_corpora()
    with pytest.raises(ValueError, match="registered already"):
        register_corpus("documents")(write)
    with pytest.raises(ValueError, match="already"):
        register_layout("receipt", "amounts_right", fields=3)(lambda page, fields: None)
    with pytest.raises(KeyError, match="known: .*documents"):
        get_corpus("poems")
    with pytest.raises(ValueError, match="train, val, test"):
        write("unused", "dev", 0, 1)


def test_split_is_a_fixed_function_of_content():
    assert split_of("receipt", "amounts_right", "TAX", "42") == split_of("receipt", "amounts_right", "TAX", "42")
    counts = {split: 0 for split in SHARES}
    for number in range(3000):
        counts[split_of("x", str(number))] += 1
    assert all(abs(counts[split] / 3000 - share) < 0.03 for split, share in SHARES.items())
