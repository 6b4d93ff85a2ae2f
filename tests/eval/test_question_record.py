"""Records of one question: what cannot be meant as it stands is refused instead of scored as the model's mistake."""

import json

import pytest

from eval.data import read_dataset
from eval.evaluate import evaluate
from eval.jobs import job_for_data
from eval.question_record import options_of
from eval.tasks.base import Options
from tests.eval.test_resume import Echo


def read(tmp_path, *rows):
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path, read_dataset(path).samples


def test_options_may_be_letters_with_texts(tmp_path):
    _, (sample,) = read(tmp_path, {"question": "CUT?", "options": {"B": "97", "A": "98"}, "answer": "B"})
    assert sample.question == "CUT?\nA. 98\nB. 97" and sample.scoring == {"options": ["98", "97"]}
    assert sample.answers == ["B"] and sample.problem is None


@pytest.mark.parametrize("options, words", [
    ({"A": "x", "C": "y"}, "letters A, C, expected A, B, C"), ("A. x B. y", "at most 26 texts"),
    ([str(i) for i in range(27)], "at most 26 texts"),
])  # fmt: skip
def test_options_that_are_none(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        options_of(options)
    _, (sample,) = read(tmp_path, {"id": "q", "question": "?", "options": options, "answer": "A", "kind": "k"})
    assert words in sample.problem and sample.kind == "k", "it counts as wrong where it belongs"


@pytest.mark.parametrize("record, words", [
    ({"question": "  ", "answer": "a"}, "the question is empty"),
    ({"question": None, "answer": "a"}, "the question is empty"),
    ({"question": "?"}, "no answer or answers"),
    ({"question": "?", "answer": "a", "img": "x/000000.PNG"}, "the key 'img' holds a media file"),
    ({"question": "?", "answer": "a", "image_name": "synpic1.jpg"}, "the key 'image_name' holds a media file"),
])  # fmt: skip
def test_what_cannot_be_asked_is_named(tmp_path, record, words):
    _, (sample,) = read(tmp_path, record)
    assert words in sample.problem


def test_other_keys_beside_a_picture_are_nobodys_business(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    row = {"question": "?", "answer": "a", "image": "a.png", "source_path": "resources/a.png", "url": "http://x/y.png"}
    _, samples = read(tmp_path, row, {"question": "?", "answer": "a", "url": "http://x/y.png"})
    assert [sample.problem for sample in samples] == [None, None]


def test_a_gold_answer_that_is_no_option_and_options_with_the_same_words(tmp_path, caplog):
    rows = [
        {"id": "index", "question": "?", "options": ["98", "97"], "answer": 0},
        {"id": "beyond", "question": "?", "options": ["x", "y", "z"], "answer": "E"},
        {"id": "twice", "question": "A", "options": ["98", "98", "12"], "answer": "A"},
        {"id": "words", "question": "98", "options": ["98", "98", "12"], "answer": "A"},
    ]
    path, _ = read(tmp_path, *rows)
    results = evaluate(FirstLine(), [job_for_data(path)], Options(), progress=False)
    rows = {row["id"]: row for row in results["samples"]}
    assert "gold answer '0' is none of the 2 options" in rows["index"]["error"]
    assert "gold answer 'E' is none of the 3 options" in rows["beyond"]["error"]
    assert (rows["twice"]["score"], rows["words"]["score"]) == (1.0, 0.0)
    assert "2 questions have two options with the same words (twice, words)" in caplog.text
    figures = results["tasks"]["d"]
    assert (figures["mcq_accuracy"], figures["unreadable_rate"]) == (0.25, 0.75)


class FirstLine(Echo):
    def encode(self, messages, sample_id):
        text = messages[-1]["content"][0]["text"].splitlines()[0]
        return super().encode([{"content": [{"text": text}]}], sample_id)
