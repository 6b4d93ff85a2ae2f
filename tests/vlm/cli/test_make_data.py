"""`radio-vlm make-data`: whole folders or nothing, never over somebody else's files."""

import json

import pytest

from tests.helpers.data_folders import record, write_records
from training.data.sources import open_source
from training.data.synthetic import registry
from vlm.cli.main import main


@pytest.fixture
def corpus(monkeypatch):
    """A corpus called "little"; its option `fail` breaks it half-way."""

    def write(out, split, seed, n, fail=False, word="A"):
        write_records(out, [record(f"{split}-{seed}-{i}", answer=word) for i in range(n)])
        if fail:
            raise RuntimeError("disk full")
        (out / "dataset.json").write_text(
            json.dumps({"name": "synthetic_little", "split": split, "seed": seed, "n": n})
        )

    registry.known_corpora()
    monkeypatch.setitem(registry.CORPORA, "little", write)


def make(out, *more, task="little", n=3):
    return main(
        ["make-data", "--task", task, "--split", "test", "--seed", "5", "--n", str(n), "--out", str(out), *more]
    )


def test_writes_a_dataset_and_replaces_only_its_own(tmp_path, corpus, capsys):
    out = tmp_path / "new" / "d"
    assert make(out) == 0 and make(out, "--option", "word=B", n=2) == 0
    assert "2 records of little (test, seed 5)" in capsys.readouterr().out
    samples = list(open_source(out))
    assert [sample.id for sample in samples] == ["test-5-0", "test-5-1"]
    assert samples[0].messages[1]["content"][0]["text"] == "B"
    assert [path.name for path in out.parent.iterdir()] == ["d"]
    write_records(tmp_path / "mine", [record("x")])
    assert make(tmp_path / "mine") == 2 and "holds no synthetic dataset" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert make(tmp_path / "empty") == 0


def test_a_failure_leaves_the_old_data(tmp_path, corpus):
    out = tmp_path / "d"
    make(out)
    with pytest.raises(RuntimeError, match="disk full"):
        make(out, "--option", "fail=true", n=9)
    assert len(open_source(out)) == 3 and [path.name for path in tmp_path.iterdir()] == ["d"]


def test_usage_errors(tmp_path, corpus, capsys):
    for arguments, words in (
        (dict(task="poems"), "unknown corpus 'poems'; known: documents"),
        (dict(n=0), "--n must be at least 1"),
    ):
        assert make(tmp_path / "d", **arguments) == 2
        assert words in capsys.readouterr().err
    assert make(tmp_path / "d", "--option", "colour=red") == 2
    assert "colour" in capsys.readouterr().err and not (tmp_path / "d").exists()


def test_every_corpus_can_be_made_and_read(tmp_path):
    for task in registry.known_corpora():
        assert make(tmp_path / task, task=task) == 0
        if not (tmp_path / task / "images.jsonl").exists():  # images wait for `make-expert-data`
            assert main(["check-data", str(tmp_path / task)]) == 0


def test_a_plan_makes_every_set_as_the_single_commands_would(tmp_path, corpus, capsys):
    plan = tmp_path / "plan.yaml"
    plan.write_text("little-test: {n: 3}\nmore-val: {corpus: little, n: 2, options: [word=B]}\n")
    assert main(["make-data", "--plan", str(plan), "--seed", "5", "--out", str(tmp_path / "all")]) == 0
    assert "2 records of little (val, seed 5)" in capsys.readouterr().out
    assert make(tmp_path / "one") == 0
    one, all_ = tmp_path / "one" / "records.jsonl", tmp_path / "all" / "little-test" / "records.jsonl"
    assert one.read_bytes() == all_.read_bytes()
    assert len(list(open_source(tmp_path / "all" / "more-val"))) == 2


def test_a_plan_that_is_none_and_a_task_without_split_are_refused(tmp_path, capsys):
    plan = tmp_path / "plan.yaml"
    plan.write_text("- documents\n")
    assert main(["make-data", "--plan", str(plan), "--out", str(tmp_path / "x")]) == 2
    assert "documents-train: {n: 2000}" in capsys.readouterr().err
    assert main(["make-data", "--task", "documents", "--out", str(tmp_path / "x")]) == 2
    assert "--split and --n" in capsys.readouterr().err
