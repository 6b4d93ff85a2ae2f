"""Going on after a kill: no question is asked twice, none is lost, and another run's answers are refused."""

import json

import pytest

from eval.backends.base import Backend, Batch, Encoded, Reply
from eval.evaluate import evaluate
from eval.jobs import job_for_data
from eval.journal import Journal, ResumeError, partial_folder, read_replies, remove_journal, set_aside_results
from eval.results import write_json
from eval.tasks.base import Options


class Killed(BaseException):
    """What a kill is to the code that runs: nothing catches it."""


class Echo(Backend):
    """Answers with the question; dies after so many batches; fails on what holds `poison`."""

    name = "echo"

    def __init__(self, die_after=None, poison=None, fingerprint="a"):
        self.asked, self.die_after, self.poison, self.fingerprint = [], die_after, poison, fingerprint

    def encode(self, messages, sample_id):
        text = messages[-1]["content"][0]["text"]
        return Encoded(data=text, length=len(text))

    def generate(self, batch, decoding):
        if self.die_after is not None and len(self.asked) >= self.die_after:
            raise Killed
        if any(self.poison in one.data for one in batch if self.poison):
            raise RuntimeError("the server is away")
        self.asked += [one.data for one in batch]
        return Batch([Reply(one.data, tokens=1, stopped=True) for one in batch])

    def describe(self):
        return {"class": "Echo", "fingerprint": self.fingerprint}


@pytest.fixture
def data(tmp_path):
    rows = [{"id": f"q{i}", "question": f"word {i}", "answers": [f"word {i}" if i % 3 else "?"]} for i in range(50)]
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def run(backend, data, out, resume=True, name="m", **options):
    results = evaluate(
        backend, [job_for_data(data)], Options(**options), batch_size=4, model_name=name, progress=False, out=out,
        resume=resume,
    )  # fmt: skip
    return {row["id"]: (row["output"], row["score"], row["input_hash"]) for row in results["samples"]}, results


def test_a_killed_run_goes_on_where_it_was(data, tmp_path):
    out = tmp_path / "r.json"
    whole, _ = run(Echo(), data, tmp_path / "whole.json")
    first = Echo(die_after=20)
    with pytest.raises(Killed):
        run(first, data, out)
    assert len(first.asked) == 20
    # the kill tore the last line
    (journal,) = partial_folder(out).glob("rank*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-9])
    second = Echo()
    resumed, results = run(second, data, out)
    assert resumed == whole and len(results["samples"]) == 50
    assert len(second.asked) == 31 and len(set(first.asked) & set(second.asked)) == 1  # the torn one, once more
    # after a third start nothing is left to ask: the second wrote its lines below the torn one
    third = Echo()
    assert run(third, data, out)[0] == whole and third.asked == []


def test_failed_samples_get_another_try(data, tmp_path):
    out = tmp_path / "r.json"
    scores, results = run(Echo(poison="word 7"), data, out)
    assert scores["q7"][1] == 0.0 and results["tasks"]["d"]["failed"] == 1
    write_json(results, out)
    again = Echo()
    resumed, results = run(again, data, out)
    assert again.asked == ["word 7"] and resumed["q7"][:2] == ("word 7", 1.0)
    assert results["tasks"]["d"]["failed"] == 0


def test_a_finished_file_is_taken_up(data, tmp_path):
    out = tmp_path / "r.json"
    whole, results = run(Echo(), data, out)
    write_json(results, out)
    for file in partial_folder(out).iterdir():
        file.unlink()
    backend = Echo()
    assert run(backend, data, out)[0] == whole and backend.asked == []


@pytest.mark.parametrize("finished", [False, True])
def test_another_run_is_refused_by_name(data, tmp_path, finished):
    out = tmp_path / "r.json"
    _, results = run(Echo(), data, out, name="model-a")
    if finished:
        write_json(results, out)
        for file in partial_folder(out).iterdir():
            file.unlink()
    with pytest.raises(ResumeError, match="its model is model-a, now it is model-b"):
        run(Echo(fingerprint="b"), data, out, name="model-b")
    with pytest.raises(ResumeError, match="fingerprint is a, now it is b"):
        run(Echo(fingerprint="b"), data, out, name="model-a")
    run(Echo(), data, out, name="model-a-moved")  # the same weights in another place
    with pytest.raises(ResumeError, match="its limit is null, now it is 5"):
        run(Echo(), data, out, name="model-a", limit=5)
    data.write_text(data.read_text().replace("word 9", "word nine"))
    with pytest.raises(ResumeError, match="tasks"):
        run(Echo(), data, out, name="model-a")


def test_something_else_is_no_results_file(data, tmp_path):
    out = tmp_path / "notes.json"
    out.write_text('{"samples": "my notes"}')
    with pytest.raises(ValueError, match="notes.json is not a results file"):
        run(Echo(), data, out)


def test_without_resume_nothing_is_lost_either(data, tmp_path, caplog):
    out = tmp_path / "r.json"
    with pytest.raises(Killed):
        run(Echo(die_after=12), data, out)
    backend = Echo()
    run(backend, data, out, resume=False)
    assert len(backend.asked) == 50
    (aside,) = tmp_path.glob("r.json.partial-*")
    assert len(read_replies(aside)) == 12 and str(aside) in caplog.text


def test_processes_write_files_of_their_own(tmp_path):
    header = {"model": "m"}
    for rank in (0, 1):
        journal = Journal(tmp_path / "r.json", header, rank=rank)
        if rank == 0:
            journal.start()
        journal.add({f"t//1/{rank}": Reply("yes"), f"t//1/bad{rank}": Reply(error="no")})
        journal.close()
    # on another number of processes: all answers are known to each
    assert set(Journal(tmp_path / "r.json", header, resume=True, rank=0).known) == {"t//1/0", "t//1/1"}


def test_ids_that_occur_twice_stay_two_samples(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(json.dumps({"id": "q", "question": f"w{i}", "answers": ["w1"]}) for i in range(3)))
    with pytest.raises(Killed):
        run(Echo(die_after=0), path, tmp_path / "r.json")
    scores, results = run(Echo(), path, tmp_path / "r.json")
    assert {name: score[1] for name, score in scores.items()} == {"q": 0.0, "q~2": 1.0, "q~3": 0.0}


def test_line_separators_and_half_characters_in_answers_are_kept(tmp_path):
    """U+2028 and NEL are no ends of lines in JSON; half a surrogate pair is what a cut JSON string leaves."""
    texts = {"t//1/a": "one\u2028two", "t//1/b": "x\x85y", "t//1/c": "a\u20285\u2029b", "t//1/d": "half \ud83d"}
    journal = Journal(tmp_path / "r.json", {"model": "m"})
    journal.start()
    journal.add({key: Reply(text) for key, text in texts.items()})
    journal.close()
    assert {key: reply.text for key, reply in read_replies(journal.folder).items()} == texts
    write_json(texts, tmp_path / "w.json")
    assert json.loads((tmp_path / "w.json").read_text()) == texts


def test_a_finished_run_that_goes_on_and_is_killed_keeps_both_halves(data, tmp_path):
    """11 of 50 failed at first; the second try was killed in their midst: the third asks only what is left."""
    out = tmp_path / "r.json"
    _, results = run(Echo(poison="word 1"), data, out)  # and word 10 … 19
    write_json(results, out)
    remove_journal(out)
    second = Echo(die_after=4)
    with pytest.raises(Killed):
        run(second, data, out)
    third = Echo()
    resumed, _ = run(third, data, out)
    assert sorted(third.asked + second.asked) == sorted(["word 1", *(f"word {i}" for i in range(10, 20))])
    assert all(output for output, _, _ in resumed.values())
    # a results file of another run beside the journal is none of its business
    with pytest.raises(Killed):
        run(Echo(fingerprint="b", die_after=8), data, out, resume=False, name="other")
    other = Echo(fingerprint="b")
    run(other, data, out, name="other")
    assert len(other.asked) == 42


def test_the_message_names_what_differs(data, tmp_path):
    out = tmp_path / "r.json"
    run(Echo(), data, out)
    with pytest.raises(ResumeError, match="its tasks → d → max new tokens is 64, now it is 5|max_new_tokens is 64"):
        run(Echo(), data, out, max_new_tokens=5)


def test_finished_results_of_another_run_are_set_aside(data, tmp_path, caplog):
    out = tmp_path / "r.json"
    _, first = run(Echo(), data, out, name="model-a")
    write_json(first, out)
    set_aside_results(out, first["run"])
    assert out.is_file(), "the same run again may take its place"
    set_aside_results(out, {**first["run"], "limit": 3})
    (aside,) = tmp_path.glob("r.json.before-*")
    assert not out.exists() and json.loads(aside.read_text())["model"] == "model-a" and str(aside) in caplog.text
    out.write_text("notes")
    set_aside_results(out, first["run"])
    assert out.read_text() == "notes", "what is no results file is left to the writer"
