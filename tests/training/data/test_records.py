"""Every shape of a record, and every way in which one can be wrong."""

import pytest

from training.data.records import parse_record
from vlm.errors import SampleError


def parse(record):
    return parse_record(record, default_id="f:1", source="here", base_dir=None, origin="f.jsonl:1")


def shape(sample):
    """The conversation as strings, media as <type:value>."""
    return [
        (
            m["role"],
            "".join(i["text"] if i["type"] == "text" else f"<{i['type']}:{i[i['type']]}>" for i in m["content"]),
        )
        for m in sample.messages
    ]


def user(*items):
    return [{"role": "user", "content": list(items)}, {"role": "assistant", "content": "A"}]


Q, A = {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}

GOOD = [
    ({"messages": user({"type": "image", "image": "a.png"}, {"type": "text", "text": "Q"})}, "<image:a.png>Q"),
    ({"messages": user("Q <image>")}, "Q <image>"),  # typed items: a literal tag is text
    ({"messages": user({"type": "image"}, "Q"), "images": ["a.png"]}, "<image:a.png>Q"),
    ({"messages": user({"type": "image", "path": "a.png"}, "Q")}, "<image:a.png>Q"),
    ({"messages": [{"role": "user", "content": "<image>\nQ<video>"}, {"role": "assistant", "content": "A"}],
      "images": ["a.png"], "videos": ["v.mp4"]}, "<image:a.png>Q<video:v.mp4>"),
    ({"messages": [{"role": "user", "content": "Q <image>"}, {"role": "assistant", "content": "A"}]}, "Q <image>"),
    ({"conversations": [{"from": "human", "value": "<image>\nQ"}, A], "image": "a.png"}, "<image:a.png>Q"),
    ({"conversations": [{"from": "human", "value": "Q\n<image>"}, A], "image": "a.png"}, "Q<image:a.png>"),
    ({"conversations": [{"from": "human", "value": "<image>\n<image>\nQ"}, A], "image": ["a", "b"]},
     "<image:a><image:b>Q"),
    ({"conversations": [{"from": "human", "value": "<image>\nQ"}, A], "video": "v.mp4"}, "<video:v.mp4>Q"),
    ({"conversations": [Q, A]}, "Q"),
    ({"texts": [{"user": "Q", "assistant": "A"}], "images": ["a.png"]}, "<image:a.png>Q"),
    ({"question": "Q", "answers": ["A", "B"], "image": "a.png"}, "<image:a.png>Q"),
    ({"question": "Q", "answer": "A", "options": ["x", "y"]}, "Q\nA. x\nB. y"),
    ({"file_name": "a.png", "text": "A"}, "<image:a.png>"),
]  # fmt: skip


@pytest.mark.parametrize("record, question", GOOD)
def test_good_records(record, question):
    assert shape(parse(record)) == [("user", question), ("assistant", "A")]


def test_identity_and_meta():
    sample = parse({"id": 7, "source": "s", "question": "Q", "answers": ["A"], "metric": "anls", "meta": {"kind": "k"}})
    assert (sample.id, sample.source) == ("7", "s")
    assert sample.meta == {"metric": "anls", "kind": "k", "answers": ["A"]}
    assert parse({"question": "Q", "answers": ["A"]}).id == "f:1"
    choice = parse({"question": "Q", "options": ["x", "y"], "answer": "B", "answers": ["y"]})
    assert choice.messages[1]["content"][0]["text"] == "B" and choice.meta["answers"] == ["B", "y"]
    assert sample.has_answer() and not parse({"messages": [{"role": "user", "content": "Q"}]}).has_answer()


def test_a_tag_in_the_answer_is_text():
    sample = parse(
        {"conversations": [{"from": "human", "value": "<image>Q"}, {"from": "gpt", "value": "<image>"}], "image": "a"}
    )
    assert shape(sample)[1] == ("assistant", "<image>")


BAD = [
    ([1], "schema", "list"),
    ({"id": "x"}, "schema", "no conversation found"),
    ({"messages": []}, "schema", "empty"),
    ({"messages": "hi"}, "schema", "must be a list"),
    ({"messages": ["hi"]}, "schema", "a turn is an object"),
    ({"messages": [{"role": "boss", "content": "x"}]}, "schema", "unknown role 'boss', known: "),
    ({"messages": [{"role": "user"}]}, "schema", "lacks 'content'"),
    ({"messages": user({"type": "audio"})}, "schema", "unknown content type 'audio', known: text, image, video"),
    ({"messages": user({"type": "text", "text": 3})}, "schema", "text must be a string"),
    ({"messages": user({"type": "image", "image": 3})}, "schema", "'image' must be a path"),
    ({"messages": user({"type": "image"})}, "tag_mismatch", "of images: 0"),
    ({"messages": user("Q"), "images": ["a"]}, "tag_mismatch", "of images: 1"),
    ({"conversations": [Q, A], "image": "a"}, "tag_mismatch", "tags: 0, of images: 1"),
    ({"conversations": [{"from": "human", "value": "<image><image>"}, A], "image": "a"},
     "tag_mismatch", "tags: 2, of images: 1"),
    ({"conversations": [{"from": "human", "value": "<video>"}, A]}, "tag_mismatch", "<video> tags: 1"),
    ({"question": "Q", "answers": []}, "schema", "'answers' is empty"),
    ({"texts": []}, "schema", "empty"),
    ({"question": "Q", "answers": ["A"], "meta": 3}, "schema", "'meta'"),
]  # fmt: skip


@pytest.mark.parametrize("record, reason, words", BAD)
def test_bad_records(record, reason, words):
    with pytest.raises(SampleError, match=words) as error:
        parse(record)
    assert error.value.reason == reason and error.value.path == "f.jsonl:1" and error.value.sample_id
