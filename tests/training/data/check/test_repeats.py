"""What is twice: pictures by their looks, conversations by their words, and what training shares with held-out data."""

import json

from tests.helpers.data_folders import record, write_records
from tests.training.data.check.receipts import receipt, receipts
from training.data.check import Job, check


def overlap(report) -> list[str]:
    return sorted(problem.id for problem in report.problems if problem.reason == "in_training")


def test_held_out_copies_of_training_pictures_are_found(tmp_path):
    """Saved again at another quality under another name, with another question."""
    train = receipts(tmp_path / "train", range(8))
    test = receipts(tmp_path / "test", range(6, 12), "t", "How much was paid for all of it?", quality=50)
    report = check([Job(train), Job(test, "eval")], looks=True, workers=0)
    assert overlap(report) == ["t6", "t7"] and not report.ok
    assert [one.bad for one in report.sources] == [0, 2] and report.repeats.pictures == 14
    problem = next(iter(report.problems))
    assert problem.where == f"{test}/records.jsonl:1" and f"{train}/records.jsonl:7" in problem.message
    assert "picture looks like one in training" in problem.message or "is also in training" in problem.message
    assert problem.file == "images/6.jpg"


def test_controls_without_overlap(tmp_path):
    """Other receipts share nothing; the same ones as training data of both are no overlap; not asked: not found."""
    train, test = receipts(tmp_path / "train", range(6)), receipts(tmp_path / "test", range(6, 12), "t")
    assert check([Job(train), Job(test, "eval")], looks=True, workers=0).ok
    again = receipts(tmp_path / "again", range(6), "a", "Another question?")
    report = check([Job(train), Job(again)], looks=True, workers=0)
    assert report.ok and (report.repeats.groups, report.repeats.grouped) == (6, 12)
    assert check([Job(train), Job(again, "eval")], workers=0).ok


def test_the_same_file_is_found_without_looking(tmp_path):
    train = receipts(tmp_path / "d", range(4))
    held = write_records(tmp_path / "d", [record("h", "Other?", "Yes", ("images/2.jpg",))], "held.jsonl")
    spec = {"path": train / "records.jsonl"}
    report = check([Job(spec), Job({"path": held / "held.jsonl"}, "eval")], workers=0)
    assert overlap(report) == ["h"] and report.problems.examples["in_training"][0].file == "images/2.jpg"


def test_conversations(tmp_path):
    """The same words and media are a repeat; other words, other media or other calls of tools are none."""
    rows = [record("a", "Why?", "So."), record("b", "Why?", "No."), record("c", "Why?", "So."), record("d")]
    call = {"role": "assistant", "content": [], "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}
    for name, x in (("e", 1), ("f", 2)):
        rows.append(json.loads(json.dumps({**rows[3], "id": name, "messages": [rows[3]["messages"][0], call]})))
        rows[-1]["messages"][1]["tool_calls"][0]["function"]["arguments"]["x"] = x
    train = write_records(tmp_path / "train", rows)
    test = write_records(tmp_path / "test", [record("t", "Why?", "No."), record("u", "Why not?", "No.")])
    report = check([Job(train), Job(test, "eval")], workers=0)
    assert report.repeats.conversations == 1
    (pair,) = map(report.pair, report.repeats.conversation_pairs)
    assert pair == {"first": f"{train}/records.jsonl:1", "other": f"{train}/records.jsonl:3", "bits": 0,
                    "same": "conversation"}  # fmt: skip
    assert overlap(report) == ["t"] and "conversation is also in training" in next(iter(report.problems)).message


def test_long_paths_are_told_apart(tmp_path):
    folder = tmp_path / ("x" * 120) / ("y" * 120)
    receipts(folder, range(2))
    rows = [record(f"r{i}", "Same?", "Same.", (f"images/{i}.jpg",)) for i in range(2)]
    assert check([write_records(folder, rows)], workers=0).repeats.conversations == 0


def test_a_source_of_two_stages_does_not_repeat_itself(tmp_path):
    train = receipts(tmp_path / "train", range(3))
    jobs = [Job({"path": train}, stage="one"), Job({"path": train, "limit": 2}, stage="two")]
    report = check(jobs, looks=True, workers=0)
    assert report.ok and report.repeats.conversations == 0 and report.repeats.groups == 0


def test_groups_join_through_others(tmp_path):
    folder = receipts(tmp_path / "d", range(5))
    for number, quality in enumerate((30, 60)):
        receipt(0).save(folder / f"images/{number + 10}.jpg", quality=quality)
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    rows += [record(f"x{n}", "Q", "A", (f"images/{n}.jpg",)) for n in (10, 11)]
    report = check([write_records(folder, rows)], looks=True, workers=0)
    assert (report.repeats.groups, report.repeats.grouped) == (1, 3)
    assert {report.medium(place) for pair in report.repeats.pairs for place in (pair.first, pair.other)} == {
        "images/0.jpg", "images/10.jpg", "images/11.jpg"}  # fmt: skip
