"""Several pages in one conversation: the question names a page, and the answer is what stands on that page."""

import json

from training.data.synthetic.registry import get_corpus


def write(tmp_path, split="test", seed=3, n=40):
    out = tmp_path / f"{split}-{seed}"
    get_corpus("pages")(out, split, seed, n)
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()], out


def test_records_hold_two_to_four_existing_pages_and_one_question(tmp_path):
    records, out = write(tmp_path)
    counts = set()
    for record in records:
        images = [item["image"] for item in record["messages"][0]["content"] if item["type"] == "image"]
        assert all((out / name).is_file() for name in images)
        counts.add(len(images))
        page = int(record["messages"][0]["content"][-1]["text"].split()[1])
        assert 1 <= page <= len(images) and record["meta"]["kind"] == f"{len(images)} pages"
        assert record["meta"]["answers"] == [record["messages"][1]["content"][0]["text"]]
        assert len(record["messages"]) == 2
    assert counts == {2, 3, 4}


def test_training_asks_several_questions_and_never_of_one_field_twice(tmp_path):
    for record in write(tmp_path, "train", n=10)[0]:
        asked = [turn["content"][-1]["text"] for turn in record["messages"] if turn["role"] == "user"]
        assert len(asked) == len(set(asked)) == 4


def test_same_seed_same_records_other_seed_others(tmp_path):
    first, again = write(tmp_path / "a")[0], write(tmp_path / "b")[0]
    assert first == again
    assert first != write(tmp_path, seed=4)[0]
