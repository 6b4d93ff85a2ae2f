"""Documents in training data: every way to write them down, their paths, what the check says of broken ones."""

import json

import pytest
import torch

from tests.helpers.data_folders import record, write_image, write_records
from tests.helpers.pdfs import encrypted_pdf, write_pages
from tests.helpers.tiny_processor import tiny_processor
from training.data.check import check
from training.data.convert import convert
from training.data.lengths import TOKENS_PER_MEDIUM, estimated_lengths
from training.data.records import parse_record
from training.data.sources import open_source
from vlm.errors import SampleError
from vlm.prompt_documents import expand_documents

pytest.importorskip("pypdfium2", reason="optional package absent")
ANSWER = {"role": "assistant", "content": "A"}
FILE = {"type": "document", "document": "a.pdf"}
SOME = {"type": "document", "document": "a.pdf", "pages": "1-2", "dpi": 72}


def parse(record):
    return parse_record(record, default_id="f:1", source="here", base_dir=None, origin="f.jsonl:1")


def text(words):
    return {"type": "text", "text": words}


def llava(value):
    return [{"from": "human", "value": value}, {"from": "gpt", "value": "A"}]


GOOD = [
    ({"messages": [{"role": "user", "content": [SOME, text("Q")]}, ANSWER]}, [SOME, text("Q")]),
    ({"messages": [{"role": "user", "content": [{"type": "document", "path": "a.pdf"}, "Q"]}, ANSWER]},
     [FILE, text("Q")]),
    ({"messages": [{"role": "user", "content": "<document>\nQ"}, ANSWER], "documents": ["a.pdf"]}, [FILE, text("Q")]),
    ({"messages": [{"role": "user", "content": [{"type": "document"}, "Q"]}, ANSWER], "document": "a.pdf"},
     [FILE, text("Q")]),
    ({"conversations": llava("Q <document>"), "document": "a.pdf"}, [text("Q "), FILE]),
    ({"conversations": llava("<document>\nQ"), "document": {"document": "a.pdf", "pages": "1-2", "dpi": 72}},
     [SOME, text("Q")]),
    ({"conversations": llava("<document>\n<image>\n<document>\nQ"), "image": "b.png", "documents": ["a.pdf", "a.pdf"]},
     [FILE, {"type": "image", "image": "b.png"}, FILE, text("Q")]),
    ({"question": "Q", "answers": ["A"], "document": "a.pdf"}, [FILE, text("Q")]),
    ({"texts": [{"user": "Q", "assistant": "A"}], "documents": ["a.pdf"]}, [FILE, text("Q")]),
    # a word of the text where no document is listed
    ({"conversations": llava("<document>law</document>")}, [text("<document>law</document>")]),
    ({"conversations": llava("<image>\n<document>law"), "image": "b.png"},
     [{"type": "image", "image": "b.png"}, text("<document>law")]),
    # LLaVA-Video writes <image> for its videos, also beside a document
    ({"conversations": llava("<image>\n<document>Q"), "video": "v.mp4", "document": "a.pdf"},
     [{"type": "video", "video": "v.mp4"}, FILE, text("Q")]),
]  # fmt: skip


@pytest.mark.parametrize(("record", "items"), GOOD)
def test_ways_to_write_a_document(record, items):
    sample = parse(record)
    assert sample.messages[0]["content"] == items
    assert [kind for kind, _ in sample.media()] == [item["type"] for item in items if item["type"] != "text"]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"conversations": llava("Q"), "document": "a.pdf"}, "<document> tags: 0, of documents: 1"),
        ({"conversations": llava("<document><document>"), "document": "a.pdf"}, "<document> tags: 2, of documents: 1"),
        ({"conversations": llava("<image>"), "document": "a.pdf"}, "<image> tags: 1"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}, ANSWER]}, "<document> tags: 1"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "document": 3}]}, ANSWER]}, "must be a path"),
    ],
)
def test_documents_that_do_not_match(record, words):
    with pytest.raises(SampleError, match=words):
        parse(record)


def folder_of(tmp_path, *items, name="records.jsonl"):
    folder = tmp_path / "d"
    write_pages(folder / "files/a.pdf")
    one = record("s0")
    one["messages"][0]["content"][:0] = items
    write_records(folder, [one], name)
    return folder


def test_paths_are_below_the_data_folder(tmp_path):
    inside = {"type": "document", "document": "files/a.pdf", "pages": [2]}
    (sample,) = open_source(folder_of(tmp_path, inside))
    item = sample.resolved_messages()[0]["content"][0]
    assert item == {**inside, "document": str(tmp_path / "d/files/a.pdf")}
    write_pages(tmp_path / "secret.pdf")
    (sample,) = open_source(folder_of(tmp_path, {"type": "document", "document": "../secret.pdf"}))
    with pytest.raises(SampleError, match="leaves the data folder") as caught:
        sample.resolved_messages()
    assert caught.value.reason == "outside_folder"


def test_lengths_count_the_chosen_pages(tmp_path):
    processor = tiny_processor()
    lengths = []
    for pages in (None, "1", "1-2"):
        item = {"type": "document", "document": "files/a.pdf", "pages": pages}
        source = open_source(folder_of(tmp_path, {key: value for key, value in item.items() if value}))
        lengths.append(int(estimated_lengths(source, processor)[0]))
        messages = expand_documents(source[0].resolved_messages())
        assert abs(lengths[-1] - len(processor.encode(messages)["input_ids"])) < 80
    page = processor.num_image_tokens(144, 144)
    assert lengths[0] > lengths[2] > lengths[1] and lengths[2] - lengths[1] - page in range(20)
    broken = open_source(folder_of(tmp_path, {"type": "document", "document": "files/a.pdf", "pages": "9"}))
    assert estimated_lengths(broken, processor)[0] > TOKENS_PER_MEDIUM["document"], "a guess; the error comes later"


@pytest.mark.parametrize("with_model", [False, True])
def test_check_opens_every_chosen_page(tmp_path, with_model):
    """A broken second page is found where it is asked for, and only there; file, sample and line are named."""
    folder = tmp_path / "d"
    path = write_pages(folder / "a.pdf", 2)
    path.write_bytes(path.read_bytes().replace(b"/Kids [100 0 R 102 0 R]", b"/Kids [100 0 R 3 0 R]"))
    (folder / "locked.pdf").write_bytes(encrypted_pdf("secret"))
    (folder / "noise.pdf").write_bytes(b"%PDF-1.4 " + bytes(range(256)))
    items = {
        "first": {"document": "a.pdf", "pages": "1"},
        "whole": {"document": "a.pdf"},
        "beyond": {"document": "a.pdf", "pages": "3"},
        "locked": {"document": "locked.pdf"},
        "noise": {"document": "noise.pdf"},
        "misspelt": {"document": "a.pdf", "page": "1"},
        "lost": {"document": "b.pdf"},
    }
    rows = []
    for name, item in items.items():
        rows.append(record(name))
        rows[-1]["messages"][0]["content"].insert(0, {"type": "document", **item})
    write_records(folder, rows)
    report = check([folder], tiny_processor() if with_model else None, workers=0)
    found = {problem.id: problem for problem in report.problems}
    reasons = {name: problem.reason for name, problem in found.items()}
    assert reasons == {
        "whole": "unreadable_pdf",
        "beyond": "bad_pages",
        "locked": "encrypted_pdf",
        "noise": "unreadable_pdf",
        "misspelt": "bad_message",
        "lost": "missing_file",
    }
    assert "page 2" in found["whole"].message and found["whole"].file == str(folder / "a.pdf")
    assert found["locked"].file == str(folder / "locked.pdf") and found["locked"].where.endswith("records.jsonl:4")
    assert report.sources[0].documents == 7 and report.sources[0].text_only == 0 and report.sources[0].bad == 6


def test_convert_keeps_documents_and_their_pages(tmp_path):
    folder = tmp_path / "in"
    write_pages(folder / "docs/a.pdf")
    write_image(folder / "b.png")
    pages = {"document": "docs/a.pdf", "pages": "2-3"}
    rows = [
        {"id": "plain", "document": "docs/a.pdf", "question": "Q", "answers": ["A"]},
        {"id": "pages", "document": pages, "question": "Q", "answers": ["A"]},
        {"id": "both", "image": "b.png", "documents": [pages, "docs/a.pdf"], "question": "Q", "answers": ["A"]},
    ]
    write_records(folder, rows, "labels.jsonl")
    before = {sample.id: sample.messages for sample in open_source(folder / "labels.jsonl")}
    assert convert(folder / "labels.jsonl", tmp_path / "out", test_share=0) == {"train": 3, "test": 0}
    after = {sample.id: sample.messages for sample in open_source(tmp_path / "out/train")}
    assert after == before and (tmp_path / "out/train/docs/a.pdf").is_file()
    written = json.loads((tmp_path / "out/train/train.json").read_text())
    assert [one["document"] for one in written] == ["docs/a.pdf", pages, [pages, "docs/a.pdf"]]


def test_documents_held_in_a_dataset(tmp_path):
    """A column of PDF bytes, as Arrow keeps files."""
    datasets = pytest.importorskip("datasets", reason="optional package absent")
    data = write_pages(tmp_path / "a.pdf").read_bytes()
    rows = {"document": [{"bytes": data, "path": None}], "question": ["Q"], "answers": [["A"]]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    (sample,) = open_source(tmp_path / "set")
    assert [kind for kind, _ in sample.media()] == ["document"]
    held = tiny_processor().encode(expand_documents(sample.resolved_messages()))
    (sample,) = open_source(folder_of(tmp_path, {"type": "document", "document": "files/a.pdf"}))
    named = tiny_processor().encode(expand_documents(sample.resolved_messages()))
    assert len(held["image_grid_hw"]) == 3 and torch.equal(held["pixel_values"], named["pixel_values"])
    assert check([tmp_path / "set"], workers=0).ok
