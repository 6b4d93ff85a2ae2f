"""Document items in a prompt: what they become, and that they are what one would have written by hand."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.helpers.pdfs import write_pages
from tests.helpers.tiny_processor import tiny_processor
from vlm.errors import SampleError
from vlm.media import PageRef, open_document
from vlm.prompt_documents import expand_documents

pytest.importorskip("pypdfium2", reason="optional package absent")
QUESTION = {"type": "text", "text": "Which page is red?"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_pages(tmp_path / "x.pdf")


def ask(*items) -> list[dict]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [*items, QUESTION]}]


def document(path, **options) -> dict:
    return {"type": "document", "document": str(path), **options}


def shape(messages: list[dict]) -> list:
    """The user's items: text as it is, pages by number."""
    return [item["text"] if item["type"] == "text" else item["image"].number for item in messages[1]["content"]]


def test_labels_pages_and_question_in_order(path: Path):
    messages = ask(document(path))
    out = expand_documents(messages)
    asked = QUESTION["text"]
    assert shape(out) == ["Page 1:\n", 1, "\n", "Page 2:\n", 2, "\n", "Page 3:\n", 3, "\n", asked]
    assert out[0] is messages[0] and messages == ask(document(path)), "the messages given are left as they were"
    chosen = expand_documents(ask(document(path, pages="3,1")))
    assert shape(chosen) == ["Page 3:\n", 3, "\n", "Page 1:\n", 1, "\n", asked]
    assert shape(expand_documents(ask(document(path, pages=[2], labels=False)))) == [2, asked]
    page = expand_documents(ask(document(path, dpi=72)))[1]["content"][1]["image"]
    assert isinstance(page, PageRef) and page.dpi == 72 and page.open().size == (72, 72)
    spelled = {"type": "document", "path": str(path), "pages": None, "dpi": None}  # null keys as Arrow writes them
    assert shape(expand_documents(ask(spelled))) == shape(out)


def test_two_documents_and_an_image_keep_their_places(path: Path):
    picture = {"type": "image", "image": Image.new("RGB", (64, 64))}
    out = expand_documents(ask(document(path, pages=1), picture, document(path, pages=2)))[1]["content"]
    kinds = [item["type"] for item in out]
    assert kinds == ["text", "image", "text", "image", "text", "image", "text", "text"] and out[3] is picture


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "document"}],
        [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image", "image": "a.png"}]}],
        [{"role": "assistant", "content": None}, {"role": "user"}],
        [{"role": "user", "content": [{"type": "text", "text": "x"}]}, {"role": "user", "content": ["document"]}],
        [],
        None,
        "no messages",
        [7],
    ],
)
def test_messages_without_documents_are_the_same_object(messages):
    assert expand_documents(messages) is messages


def test_a_document_is_what_one_would_write_by_hand(path: Path):
    """Tokens and pixels of the real processor, labels in order before their pictures."""
    processor = tiny_processor()
    by_hand = []
    for page in open_document(path):
        by_hand += [{"type": "text", "text": f"Page {page.number}:\n"}, {"type": "image", "image": page.open()}]
        by_hand += [{"type": "text", "text": "\n"}]
    one = processor.encode(expand_documents(ask(document(path))), add_generation_prompt=True)
    two = processor.encode(ask(*by_hand), add_generation_prompt=True)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    text = processor.tokenizer.decode(one["input_ids"])
    places = [text.index(f"Page {number}:") for number in (1, 2, 3)] + [text.index(QUESTION["text"])]
    assert places == sorted(places)
    assert all(text[a:b].count("<img>") == 1 for a, b in zip(places, places[1:]))
    firsts = one["pixel_values"].split([h * w for h, w in one["image_grid_hw"].tolist()])
    assert len({tuple(pixels.mean(0).tolist()) for pixels in firsts}) == 3, "three different pages"
    plain = processor.encode(expand_documents(ask(document(path, labels=False))), add_generation_prompt=True)
    assert len(plain["input_ids"]) < len(one["input_ids"]) and torch.equal(plain["pixel_values"], one["pixel_values"])


def test_a_page_cannot_write_control_tokens(path: Path):
    """The label is text like a user's, so a document item in any role adds no special token of its own."""
    processor = tiny_processor()
    messages = [{"role": "user", "content": [document(path, pages=1)]}]
    ids = processor.encode(expand_documents(messages), add_generation_prompt=True)["input_ids"]
    assert (ids == processor.image_token_id).sum() == processor.num_image_tokens(144, 144)


@pytest.mark.parametrize(
    ("options", "reason", "message"),
    [
        ({"page": "1"}, "bad_message", "has no page; its keys are .*pages"),
        ({"labels": "no"}, "bad_message", "true or false"),
        ({"pages": "4"}, "bad_pages", "page 4 is not in a document of 3 pages"),
        ({"dpi": 0}, "bad_dpi", "dpi"),
        ({"document": None}, "no_media", "no document"),
        ({"document": "nowhere.pdf"}, "missing_file", "nowhere.pdf"),
    ],
)
def test_bad_items(path: Path, options: dict, reason: str, message: str):
    with pytest.raises(SampleError, match=message) as caught:
        expand_documents(ask({**document(path), **options}))
    assert caught.value.reason == reason


def test_where_the_package_is_not_installed(path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vlm.media.pages", None)
    with pytest.raises(SampleError, match="pass the pages as images") as caught:
        expand_documents(ask(document(path)))
    assert caught.value.reason == "no_document_reader" and caught.value.path == str(path)


def test_the_file_travels_in_a_flat_checkpoint():
    """Only imports that a self-contained folder can express."""
    import vlm.prompt_documents
    from vlm.self_contained import collect_code

    assert set(collect_code(Path(vlm.prompt_documents.__file__))) == {"prompt_documents.py", "errors.py"}
    import vlm.rgb

    assert set(collect_code(Path(vlm.rgb.__file__))) == {"rgb.py"}
