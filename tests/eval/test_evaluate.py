"""Asking, controls, scoring and the results file, end to end over a fake model that reads text files as pictures."""

import json
import logging
import re

import pytest

from eval.backends.base import Decoding
from eval.backends.radio import RadioBackend, collapse_repeats
from eval.evaluate import evaluate
from eval.generation import Generator, Request
from eval.jobs import job_for_data, job_for_task
from eval.registry import UnknownNameError
from eval.rescore import rescore
from eval.results import write_json
from eval.results_file import read_results
from eval.run import main
from eval.sources import DataPlaces
from eval.table import render_figures
from eval.tasks import get_task, tasks
from eval.tasks.base import Options
from tests.helpers.fake_vlm import FakeModel, FakeProcessor

ROW_KEYS = {
    "id",
    "task",
    "kind",
    "group",
    "control",
    "question",
    "media",
    "prompt",
    "output",
    "answers",
    "score",
    "error",
}


def documents(folder, n=40, task="documents", media="image"):
    """A dataset folder whose "pictures" say `TAX=42 NET=17`."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for i in range(n):
        fields = {"TAX": str(10 + i), "NET": str(60 + i)}
        name = ("TAX", "NET")[i // 2 % 2]
        (folder / f"images/{i}.txt").write_text(" ".join(f"{k}={v}" for k, v in fields.items()) + " " * (i % 5))
        content = [{"type": media, media: f"images/{i}.txt"}, {"type": "text", "text": f"{name}?"}]
        answer = {"role": "assistant", "content": [{"type": "text", "text": fields[name]}]}
        meta = {"task": task, "kind": ("receipt", "form")[i % 2], "answers": [fields[name]], "group": str(i)}
        lines.append(
            json.dumps({"id": f"q{i}", "messages": [{"role": "user", "content": content}, answer], "meta": meta})
        )
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "dataset.json").write_text(json.dumps({"name": f"{task}-test", "task": task, "seed": 1, "n": n}))
    return folder


def reader(picture, text):
    """Answers from the picture: the value after the label that is asked for."""
    label = text.split("?")[0]
    found = re.search(rf"{label}=(\d+)", picture)
    return found[1] if found else "none"


def backend(model):
    return RadioBackend(model, FakeProcessor())


def run(folder, model, **options):
    return evaluate(backend(model), [job_for_data(folder)], Options(**options), batch_size=7, progress=False)


def test_a_model_that_reads_falls_to_zero_with_images_exchanged(tmp_path):
    results = run(documents(tmp_path / "d"), FakeModel(reader), seed=1)
    figures = results["tasks"]["documents"]
    assert (figures["exact_match"], figures["anls"], figures["n"]) == (1.0, 1.0, 40)
    assert figures["controls"] == {"images_exchanged": 0.0}
    assert figures["kinds"]["receipt"] == {"exact_match": 1.0, "images_exchanged": 0.0, "n": 20}
    assert set(figures["kinds"]) == {"receipt", "form"}


def test_a_model_that_guesses_keeps_its_score(tmp_path):
    figures = run(documents(tmp_path / "d"), FakeModel(lambda picture, text: "10"), seed=1)["tasks"]["documents"]
    assert figures["exact_match"] == 1 / 40 == figures["controls"]["images_exchanged"]


def test_results_file_holds_what_is_needed_to_repeat(tmp_path):
    results = json.loads(json.dumps(run(documents(tmp_path / "d"), FakeModel(reader), seed=5)))
    about = results["provenance"]
    assert about["seed"] == 5 and about["decoding"] == {"do_sample": False, "num_beams": 1}
    assert {"python", "torch", "transformers"} <= set(about["versions"])
    assert {"git_commit", "machine", "time", "command", "batch_size"} <= set(about)
    run_of = about["tasks"]["documents"]
    assert run_of["max_new_tokens"] == 12 and len(run_of["data"]["sha256"]) == 64 and run_of["data"]["seed"] == 1
    assert about["model"]["chat_template"] == "fake template" and about["model"]["parameters"] == 6
    assert len(results["samples"]) == 80
    assert all(ROW_KEYS <= set(row) for row in results["samples"])
    row = next(row for row in results["samples"] if row["control"])
    assert row["control"] == "images_exchanged" and row["donor"] != row["id"] and row["shown"] != row["media"]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_order_and_batch_size_do_not_change_answers(batch_size):
    requests = [
        Request(str(i), [{"role": "user", "content": [{"type": "text", "text": "x" * (i % 7 + 1)}]}]) for i in range(30)
    ]
    model = FakeModel(lambda picture, text: str(len(text)))
    replies = Generator(backend(model), batch_size, progress=False).answer(requests, Decoding(8))
    assert [reply.text for reply in replies] == [str(i % 7 + 2) for i in range(30)]
    assert all(reply.stopped and reply.tokens == 1 and reply.error is None for reply in replies)
    lengths = [length for batch in model.batches for length in batch]
    assert batch_size != 64 or lengths == sorted(lengths, reverse=True)
    for batch in model.batches:
        assert max(batch) - min(batch) <= 2 or len(model.batches) == 1, "batches hold questions of like length"


def test_sorting_in_windows_of_memory_changes_nothing(monkeypatch):
    monkeypatch.setattr("eval.generation.WINDOW_BYTES", 0)
    requests = [Request(str(i), [{"role": "user", "content": [{"type": "text", "text": "x" * i}]}]) for i in range(20)]
    model = FakeModel(lambda picture, text: str(len(text)))
    replies = Generator(backend(model), 3, progress=False).answer(requests, Decoding(8))
    assert [reply.text for reply in replies] == [str(i + 1) for i in range(20)]
    assert [len(batch) for batch in model.batches] == [3] * 6 + [2]


def test_an_answer_that_does_not_end_is_marked():
    requests = [Request("a", [{"role": "user", "content": [{"type": "text", "text": "hi"}]}])]
    (reply,) = Generator(backend(FakeModel(lambda p, t: "y" * 50)), progress=False).answer(requests, Decoding(5))
    assert (reply.text, reply.tokens, reply.stopped) == ("yyyyy", 5, False)


def test_failing_samples_are_named_and_scored_as_wrong(tmp_path, caplog):
    folder = documents(tmp_path / "d")
    (folder / "images/3.txt").unlink()  # cannot be opened
    (folder / "images/8.txt").write_text("TAX=18 poison")  # breaks the model
    with (folder / "records.jsonl").open("a") as file:
        file.write("{not json\n" + json.dumps({"id": "nogold", "messages": [], "meta": {"answers": []}}) + "\n")
    results = run(folder, FakeModel(reader, poison="poison"), controls=False)
    failed = {row["id"]: row for row in results["samples"] if row["error"]}
    assert set(failed) == {"q3", "q8", "records.jsonl:41", "nogold"}
    assert all(row["score"] == 0.0 for row in failed.values())
    assert "3.txt" in failed["q3"]["error"] and "poisoned" in failed["q8"]["error"]
    assert "not JSON" in failed["records.jsonl:41"]["error"]
    figures = results["tasks"]["documents"]
    assert (figures["n"], figures["failed"], figures["exact_match"]) == (42, 4, round(38 / 42, 4))
    for name in failed:
        assert name in caplog.text


def test_a_control_that_cannot_be_applied_does_not_flatter(tmp_path):
    """A donor whose picture cannot be opened leaves the control: a broken disk must not look like reading."""
    folder = documents(tmp_path / "d", n=40)
    for i in range(0, 40, 2):
        (folder / f"images/{i}.txt").unlink()
    results = run(folder, FakeModel(lambda picture, text: "11 " if "=11" in picture else "0"), seed=1)
    shown = [row for row in results["samples"] if row["control"]]
    fine = [row for row in shown if not row["error"]]
    assert 0 < len(fine) < len(shown)
    assert results["tasks"]["documents"]["kinds"]["receipt"].get("images_exchanged") is None


def test_a_control_over_fewer_questions_says_over_which(tmp_path):
    """Of 8 questions 4 have no partner: the control is set against the score on the other 4 alone."""
    folder = documents(tmp_path / "d", n=8)
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    for i, record in enumerate(records[4:]):
        record["meta"]["kind"] = f"alone {i}"
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    model = FakeModel(lambda picture, text: reader(picture, text) if "=10" in picture or "=12" in picture else "0")
    results = run(folder, model, seed=1)
    figures = results["tasks"]["documents"]
    right = [row["id"] for row in results["samples"] if row["control"] is None and row["score"]]
    covered = {row["id"] for row in results["samples"] if row["control"]}
    assert covered == {"q0", "q1", "q2", "q3"} and right == ["q0", "q2"]
    assert figures["exact_match"] == 0.25 and figures["controls"] == {"images_exchanged": 0.0}
    assert figures["control_pairs"] == {"images_exchanged": {"n": 4, "of": 8, "without": 0.5}}
    assert "0.000 (0.500 as asked, 4 of 8 questions)" in render_figures(results)
    whole = run(documents(tmp_path / "whole"), FakeModel(reader), seed=1)["tasks"]["documents"]
    assert "control_pairs" not in whole, "nothing is said where a control covers all"


def test_a_control_that_no_question_allows_is_named(tmp_path):
    folder = documents(tmp_path / "d", n=3)
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    for i, record in enumerate(records):
        record["meta"]["kind"] = str(i)
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    results = run(folder, FakeModel(reader))
    figures = results["tasks"]["documents"]
    assert figures["controls"] == {}
    assert figures["control_pairs"] == {"images_exchanged": {"n": 0, "of": 3, "without": None}}
    assert "– images exchanged: possible for 0 of 3 questions" in render_figures(results)
    write_json(results, tmp_path / "r.json")
    again = rescore(read_results(tmp_path / "r.json"), ["exact_match", "anls"])
    assert again["tasks"]["documents"] == figures, "rescoring does not forget it"
    for options in ({"controls": False}, {"blind": True}):
        assert "control_pairs" not in run(folder, FakeModel(reader), **options)["tasks"]["documents"]


def test_limit_and_no_controls(tmp_path):
    results = run(documents(tmp_path / "d"), FakeModel(reader), limit=5, controls=False)
    assert len(results["samples"]) == 5 and results["tasks"]["documents"]["controls"] == {}


def test_any_data_with_a_metric(tmp_path):
    folder = documents(tmp_path / "d", task="mine")
    job = job_for_data(folder, metric="relaxed_accuracy")
    results = evaluate(backend(FakeModel(reader)), [job, job], Options(), progress=False)
    assert list(results["tasks"]) == ["mine-test", "mine-test-2"]
    assert results["tasks"]["mine-test"]["relaxed_accuracy"] == 1.0
    # 5 % tolerance: a neighbour's number is often close enough, so this control is not zero
    assert results["tasks"]["mine-test"]["controls"]["images_exchanged"] < 0.5
    # the records' own metric decides when none is named
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps({"id": 1, "question": "Q", "answer": "3", "metric": "anls"}))
    assert job_for_data(path).task.metrics[0] == "anls"


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_states_what_the_table_needs(name):
    task = get_task(name)
    assert task.name == name and task.metrics and task.max_new_tokens > 0
    assert task.key or name == "dataset"


def test_requests_that_cannot_be_met_say_what_is_known(tmp_path, capsys):
    with pytest.raises(UnknownNameError, match="unknown task 'docs' .*known: .*synthetic_documents.*synthetic_videos"):
        job_for_task("docs", DataPlaces(tmp_path))
    assert main(["--model", "m", "--tasks", "docs"]) == 2
    assert "known: ai2d, " in capsys.readouterr().err
    assert main(["--model", "m", "--data", str(tmp_path), "--metric", "bleurgh"]) == 2
    assert "unknown metric 'bleurgh' (did you mean bleu4?); known: accuracy, anls" in capsys.readouterr().err
    assert main(["--model", "m", "--tasks", "synthetic_videos", "--data-root", str(tmp_path)]) == 2
    assert (
        f"radio-vlm make-data --task videos --split test --seed 1 --n 200 --out {tmp_path}/videos-test"
        in capsys.readouterr().err
    )
    assert main(["--model", "m"]) == 2
    assert "--tasks, --data or --likelihood" in capsys.readouterr().err
    assert main(["--model", "m", "--data", str(tmp_path / "nowhere")]) == 2
    assert "no such dataset" in capsys.readouterr().err
    assert main(["--model", "m", "--data", "d.jsonl", "--out", str(tmp_path)]) == 2  # and not after hours of asking
    assert f"--out {tmp_path} is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("missing, code", [(4, 1), (3, 0)])
def test_a_task_that_failed_whole_is_an_exit_code(tmp_path, monkeypatch, missing, code):
    """... also for videos, whose `n` counts the questions of the headline only."""
    rows = []
    for i in range(4):
        path = tmp_path / f"{i}.txt"
        if i >= missing:
            path.write_text("left")
        item = {"type": "video", "video": path.name}
        rows.append({
            "id": i, "meta": {"kind": "direction" if i % 2 else "order", "answers": ["left"]},
            "messages": [{"role": "user", "content": [item, {"type": "text", "text": "Where?"}]}],
        })  # fmt: skip
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "dataset.json").write_text(json.dumps({"task": "videos"}))
    monkeypatch.setattr("eval.backends.open_backend", lambda *_, **__: backend(FakeModel()))
    words = ["--model", "m", "--data", str(tmp_path), "--out", str(tmp_path / "r.json"), "--no-controls"]
    assert main([*words, "--no-progress"]) == code


def test_the_loggers_of_the_caller_are_left_alone(tmp_path, monkeypatch):
    """Set-up of logging belongs to the script: `main` also runs inside other programs, this test run among them."""
    loggers = [logging.getLogger(name) for name in ("vlm.experts", "transformers", "httpx")]
    for logger in loggers:
        monkeypatch.setattr(logger, "level", logging.DEBUG)
    main(["--model", str(tmp_path / "none"), "--tasks", "synthetic_documents", "--data-root", str(tmp_path)])
    assert [logger.level for logger in loggers] == [logging.DEBUG] * 3


def test_prompts_are_kept_short():
    assert collapse_repeats("<img>" + "<image>" * 64 + "</img> a <image><image>") == "<img><image>×64</img> a <image>×2"
