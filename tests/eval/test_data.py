"""Reading questions: every accepted shape, and every broken record named rather than fatal."""

import json

import pytest

from eval.data import read_dataset, single_questions


def write_lines(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def user(*items):
    return {"role": "user", "content": [*items]}


def text(words):
    return {"type": "text", "text": words}


def test_dataset_folder(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "d", "task": "documents", "seed": 3}))
    image = {"type": "image", "image": "images/1.png"}
    record = {
        "id": "a", "source": "s", "meta": {"answers": [42], "kind": "receipt", "group": "g"},
        "messages": [user(image, text("TAX?")), {"role": "assistant", "content": [text("42")]}],
    }  # fmt: skip
    write_lines(tmp_path / "records.jsonl", record)
    dataset = read_dataset(tmp_path)
    (sample,) = dataset.samples
    assert dataset.info["task"] == "documents" and dataset.name == "d"
    assert (sample.id, sample.kind, sample.group, sample.question, sample.answers) == (
        "a",
        "receipt",
        "g",
        "TAX?",
        ["42"],
    )
    assert sample.media == [str(tmp_path / "images/1.png")]
    assert [message["role"] for message in sample.prompt] == ["user"]


def test_llava_json_with_several_questions(tmp_path):
    turns = [("human", "<image>\nTax?"), ("gpt", "42"), ("human", "Net?"), ("gpt", "17")]
    record = {"id": 7, "image": "a.png", "conversations": [{"from": f, "value": v} for f, v in turns]}
    path = tmp_path / "data.json"
    path.write_text(json.dumps([record]))
    (sample,) = read_dataset(path).samples
    first, second = single_questions(sample)
    assert (first.id, first.question, first.answers) == ("7#0", "Tax?", ["42"])
    assert (second.id, second.question, second.answers) == ("7#1", "Net?", ["17"])
    assert first.group == second.group and second.media == [str(tmp_path / "a.png")]
    words = [item for message in second.prompt for item in message["content"] if item["type"] == "text"]
    assert "42" not in json.dumps(words), "earlier gold answers must not be shown"


def test_tags_take_files_in_their_order(tmp_path):
    turns = [{"from": "human", "value": "<image> left of <image>, then <video> ok?"}, {"from": "gpt", "value": "yes"}]
    record = {"id": "x", "images": ["1.png", "2.png"], "video": "v.mp4", "conversations": turns}
    (sample,) = read_dataset(write_lines(tmp_path / "r.jsonl", record)).samples
    assert [item["type"] for item in sample.prompt[0]["content"]] == ["image", "text", "image", "text", "video", "text"]
    assert [path.rsplit("/", 1)[1] for path in sample.media] == ["1.png", "2.png", "v.mp4"]


def test_question_records(tmp_path):
    rows = [
        {"id": 1, "image": "a.png", "question": "Q", "answers": ["x", "y"], "metric": "anls"},
        {"id": 2, "image": "a.png", "question": "Q", "answer": 3},
        {"id": 3, "image": "a.png", "question": "Q", "options": ["cat", "dog"], "answer": "B"},
        {"id": 4, "image": "a.png", "question": "Q", "options": ["cat", "dog"], "answer": "B", "answers": ["dog"]},
    ]
    one, two, three, four = read_dataset(write_lines(tmp_path / "labels.jsonl", *rows)).samples
    assert one.answers == ["x", "y"] and one.meta["metric"] == "anls"
    assert two.answers == ["3"]
    assert three.question == "Q\nA. cat\nB. dog" and three.answers == ["B"]
    assert four.answers == ["dog", "B"]


def test_a_name_that_says_nothing_is_replaced_by_the_folder(tmp_path):
    row = {"id": 1, "question": "Q", "answer": "A"}
    (tmp_path / "receipts").mkdir()
    assert read_dataset(write_lines(tmp_path / "receipts/labels.jsonl", row)).name == "receipts"
    assert read_dataset(write_lines(tmp_path / "receipts/mine.jsonl", row)).name == "mine"


GOOD = {"from": "gpt", "value": "yes"}
BROKEN = [
    ("{not json", "not JSON"),
    ("[1, 2]", "not a JSON object"),
    ({"id": "b"}, "no messages, conversations or question"),
    (
        {"id": "b", "image": "1.png", "conversations": [{"from": "human", "value": "Q"}, GOOD]},
        "0 <image> tags but 1 image",
    ),
    ({"id": "b", "conversations": [{"from": "human", "value": "<image>Q"}, GOOD]}, "1 <image> tags but 0 image"),
    ({"id": "b", "conversations": [{"from": "alien", "value": "Q"}, GOOD]}, "unknown speaker 'alien'"),
    ({"id": "b", "question": "Q", "answer": "A", "image": "../secret.png"}, "leaves the data folder"),
    ({"id": "b", "question": "Q", "answer": "A", "image": "/etc/passwd"}, "leaves the data folder"),
    ({"id": "b", "question": "Q"}, "no answer"),
    ({"id": "b", "messages": [{"role": "user"}]}, "missing key 'content'"),
    ({"id": "b", "messages": [user(text("Q")), {"content": "A"}]}, "missing key 'role'"),
    ({"id": "b", "messages": [user({"type": "text"})]}, "missing key 'text'"),
    ({"id": "b", "messages": [user({"type": "audio", "audio": "a.wav"})]}, "not one of: text, image, video"),
    ({"id": "b", "messages": [{"role": "assistant", "content": "A"}]}, "no user turn"),
    ({"id": "b", "messages": [user(text("Q")), {"role": "system", "content": "S"}]}, "no user turn"),
    ({"id": "b", "image": "1.png", "messages": ["Q"]}, "has no attribute"),
    ({"id": "b", "question": "Q", "answer": "A", "meta": "x"}, "dictionary"),
]


@pytest.mark.parametrize("row, reason", BROKEN, ids=[reason for _, reason in BROKEN])
def test_a_broken_record_is_named_and_the_rest_is_read(tmp_path, row, reason):
    good = {"id": "ok", "question": "Q", "answer": "A"}
    samples = read_dataset(write_lines(tmp_path / "r.jsonl", good, row, good)).samples
    assert [bool(sample.problem) for sample in samples] == [False, True, False]
    assert reason in samples[1].problem
    assert samples[1].id in ("b", "r.jsonl:2")
    assert not samples[1].question and not samples[1].media and not samples[1].prompt


def test_a_byte_order_mark_costs_no_record(tmp_path):
    rows = [{"id": i, "question": "Q", "answer": "A"} for i in range(2)]
    for name, body in (("r.jsonl", "\n".join(map(json.dumps, rows))), ("r.json", json.dumps(rows))):
        (tmp_path / name).write_text(body, encoding="utf-8-sig")
        assert [sample.problem for sample in read_dataset(tmp_path / name).samples] == [None, None]


def test_a_file_that_is_not_json_is_named(tmp_path):
    for body in (b"[{", b"\xff\xfe["):
        (tmp_path / "broken.json").write_bytes(body)
        with pytest.raises(ValueError, match="broken.json: not JSON"):
            read_dataset(tmp_path / "broken.json")


def test_nothing_to_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such dataset"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no such dataset"):
        read_dataset(tmp_path)
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(FileNotFoundError, match="several candidates"):
        read_dataset(tmp_path)


def test_volumes_and_where_a_picture_was_taken_from(tmp_path):
    """A volume is a folder or file of its own; `source` names what an expert reads of a picture, and stays inside."""
    picture = {"type": "image", "image": "s.png", "source": "series/a", "modality": "CT"}
    volume, question = {"type": "volume", "volume": "series/a", "slices": 4}, {"type": "text", "text": "Q"}
    write_lines(
        tmp_path / "records.jsonl",
        {"id": "v", "messages": [user(volume, question)]},
        {"id": "p", "messages": [user(picture, question)]},
        {"id": "out", "messages": [user({**picture, "source": "../a"}, question)]},
        {"id": "words", "question": "What is <volume> in HTML?", "answer": "nothing"},
    )
    volume, taken, out, words = read_dataset(tmp_path).samples
    assert volume.media == [str(tmp_path / "series/a")] and volume.prompt[0]["content"][0]["slices"] == 4
    assert taken.prompt[0]["content"][0]["source"] == str(tmp_path / "series/a")
    assert taken.media == [str(tmp_path / "s.png")]
    assert "leaves the data folder" in out.problem and words.problem is None and words.media == []


def test_labelled_images_are_no_questions(tmp_path):
    (tmp_path / "images.jsonl").write_text('{"image": "a.png", "patient": "P"}\n')
    with pytest.raises(FileNotFoundError, match="labelled images, not questions; .*make-expert-data --images"):
        read_dataset(tmp_path)
