"""`radio-vlm train`: skips what is finished, takes up what was killed, stops at failures and at what was forgotten."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.data_folders import record, write_records
from vlm.cli.main import main

# A stage that trains nothing: says how it was called, and does what the file `orders` of the test says of it.
STAGE = """
import json, pathlib, sys, time
test, name, out, resume = sys.argv[1:]
test, out = pathlib.Path(test), pathlib.Path(out)
with (test / "calls").open("a") as file:
    file.write(f"{name}{'+' if resume == 'True' else ''} ")
order = json.loads((test / "orders").read_text()).get(name)
(out / "config.json").write_text("{}")
(out / "checkpoint-3").mkdir(exist_ok=True)
print("a line of the log")
if order == "wait":
    (test / "waiting").touch()
    time.sleep(60)
sys.exit(order or 0)
"""
GUARD = """
import json, pathlib, sys
test, name, out = sys.argv[1:]
test = pathlib.Path(test)
with (test / "calls").open("a") as file:
    file.write(f"?{name} ")
value = json.loads((test / "scores").read_text())[name]
record = {"tasks": {"text": {"exact_match": value, "n": 50}},
          "provenance": {"tasks": {"text": {"metrics": ["exact_match"]}}}}
pathlib.Path(out).write_text(json.dumps(record))
"""


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A folder of three stages whose commands are those above; `calls` in tmp_path says what ran."""
    from training.pipeline import commands

    folder = tmp_path / "recipe"
    folder.mkdir()
    for index in (1, 2, 3):
        (folder / f"s{index}.yaml").write_text(
            f"model: {tmp_path}/run/s{index - 1}\noutput_dir: {tmp_path}/run/s{index}\n"
            f"data: {{sources: [{{path: {tmp_path}/data}}]}}\n"
        )
    (tmp_path / "orders").write_text("{}")
    (tmp_path / "run/s0").mkdir(parents=True)
    write_records(tmp_path / "data", [record("t")])

    def stage_command(stage, processes, hostfile, resume):
        return [sys.executable, "-c", STAGE, str(tmp_path), stage.name, str(stage.output), str(resume)]

    def guard_command(guard, data_root, model, out):
        out.parent.mkdir(exist_ok=True)
        return [sys.executable, "-c", GUARD, str(tmp_path), Path(model).name, str(out)]

    monkeypatch.setattr(commands, "stage_command", stage_command)
    monkeypatch.setattr(commands, "guard_command", guard_command)
    monkeypatch.setattr("vlm.cli.steps.REFRESH_SECONDS", 0.05)
    return folder


def train(folder, *words) -> int:
    return main(["train", str(folder), *words])


def calls(folder) -> str:
    """What ran since the last time, in order; a + marks a stage that was resumed, a ? an evaluation."""
    path = folder.parent / "calls"
    text = path.read_text().strip() if path.exists() else ""
    path.unlink(missing_ok=True)
    return text


def order(folder, **orders) -> None:
    (folder.parent / "orders").write_text(json.dumps(orders))


def test_stages_run_once_in_order_with_a_log_each(recipes):
    assert train(recipes) == 0
    assert calls(recipes) == "s1 s2 s3"
    logs = sorted(path.name for path in (recipes.parent / "run/logs").iterdir())
    assert logs == ["01-train-s1.log", "02-train-s2.log", "03-train-s3.log"]
    assert train(recipes) == 0
    assert calls(recipes) == ""  # all finished


def test_a_failed_stage_stops_the_run_and_is_taken_up_again(recipes, capsys):
    order(recipes, s2=9)
    assert train(recipes) == 1
    assert calls(recipes) == "s1 s2"
    said = capsys.readouterr().err
    assert "train s2 failed" in said and "a line of the log" in said and "exit code 9" in said
    assert "last checkpoint" not in said and "finished stages are skipped" in said  # its checkpoint is torn
    order(recipes)
    assert train(recipes) == 0
    assert calls(recipes) == "s2+ s3"
    assert (recipes.parent / "run/logs/02-train-s2.before.log").exists()  # the log of the failure is kept


def test_only_a_stage_with_a_whole_checkpoint_is_said_to_go_on_from_it(recipes, capsys):
    order(recipes, s1=9)
    train(recipes)
    layout = {"step": 3, "time": 1.0, "processes": 2, "zero": 0, "muon": False, "global_batch_size": 4}
    (recipes.parent / "run/s1/checkpoint-3/complete").write_text(json.dumps(layout))
    capsys.readouterr()
    train(recipes)
    assert "it goes on from its last checkpoint when you run the same command again" in capsys.readouterr().err
    (recipes.parent / "run/s1/checkpoint-3/complete").write_text("torn")
    assert train(recipes) == 1
    assert "last checkpoint" not in capsys.readouterr().err
    order(recipes)
    guarded(recipes, {"s0": 0.8, "s1": 0.8})  # and none for s2
    assert train(recipes) == 1
    said = capsys.readouterr().err
    assert "guard s2 failed; mend what is wrong and run the same command again" in said
    assert "last checkpoint" not in said


def test_a_stage_that_was_preempted_says_so_by_the_exit_code(recipes):
    order(recipes, s1=75)
    assert train(recipes) == 75


def test_from_and_to(recipes, capsys):
    assert train(recipes, "--to", "s2") == 0
    assert calls(recipes) == "s1 s2"
    assert train(recipes, "--from", "s3") == 0
    assert calls(recipes) == "s3"
    assert train(recipes, "--from", "s2") == 0  # finished, but asked for: anew, and so is what follows
    assert calls(recipes) == "s2 s3"
    assert not (recipes.parent / "run/s1/pipeline_stage.json").read_text().count('"complete": false')
    assert train(recipes, "--from", "s3", "--to", "s1") == 2
    assert "comes before --from" in capsys.readouterr().err


def test_a_stage_that_cannot_be_run_is_refused_before_the_first_has_run_unless_it_is_left_out(recipes, capsys):
    assert train(recipes, "s3:train.context_parallel=2") == 2
    said = capsys.readouterr().err
    assert "s3.yaml: train.context_parallel = 2" in said and calls(recipes) == ""
    assert train(recipes, "s3:train.context_parallel=2", "--to", "s2") == 0
    assert calls(recipes) == "s1 s2"


def test_a_stage_begun_on_an_earlier_training_is_not_taken_up(recipes, capsys):
    order(recipes, s2=9)
    assert train(recipes) == 1  # s2 is begun
    order(recipes, s1=9)
    assert train(recipes, "--from", "s1") == 1  # and then trained anew what s2 started from
    assert "same command again with --from s1" in capsys.readouterr().err
    order(recipes)
    calls(recipes)
    assert train(recipes) == 2
    said = capsys.readouterr().err
    assert "s2 was trained before stage s1" in said and "--from s1 (stage s1 goes on" in said and calls(recipes) == ""
    assert train(recipes, "--from", "s1") == 0
    assert calls(recipes) == "s1+ s2 s3"


def test_how_to_go_on_names_the_stage_that_is_left(recipes, capsys):
    order(recipes, s2=75)
    assert train(recipes, "--from", "s1") == 75  # once more with --from s1 would train s1 once more
    assert "run the same command again with --from s2 to go on" in capsys.readouterr().err
    calls(recipes)
    order(recipes)
    assert train(recipes, "--from", "s2") == 0
    assert calls(recipes) == "s2+ s3"


def test_old_checkpoints_go_when_a_stage_is_trained_anew(recipes):
    assert train(recipes, "--to", "s1") == 0
    (recipes.parent / "run/s1/checkpoint-900").mkdir()
    assert train(recipes, "--from", "s1", "--to", "s1") == 0
    assert [path.name for path in (recipes.parent / "run/s1").glob("checkpoint-*")] == ["checkpoint-3"]


def test_a_changed_recipe_is_not_written_over_unasked(recipes, capsys):
    assert train(recipes) == 0
    calls(recipes)
    assert train(recipes, "s2:train.max_steps=7") == 2
    said = capsys.readouterr().err
    assert "s2 holds another recipe" in said and "--from s2" in said and calls(recipes) == ""
    assert train(recipes, "s2:train.max_steps=7", "--from", "s2") == 0
    assert calls(recipes) == "s2 s3"
    assert train(recipes, "--from", "s3") == 2  # s2 is no longer that of the plain recipe
    assert "before --from is not finished" in capsys.readouterr().err


def test_a_stage_that_failed_before_its_first_checkpoint_may_change(recipes):
    order(recipes, s2=2)
    train(recipes)
    (recipes.parent / "run/s2/checkpoint-3").rmdir()
    calls(recipes)
    order(recipes)
    assert train(recipes, "s2:train.max_steps=7") == 0
    assert calls(recipes) == "s2 s3"


def test_a_dry_run_says_what_would_happen_and_does_nothing(recipes, capsys):
    order(recipes, s2=9)
    train(recipes)
    calls(recipes)
    capsys.readouterr()
    assert train(recipes, "--dry-run", "s3:train.max_steps=3") == 0
    said = capsys.readouterr().out
    assert "stage s1: finished, is skipped" in said and "stage s2: begun, is taken up again" in said
    assert "stage s3: will be trained" in said and calls(recipes) == ""


def missing_later(recipes, capsys, said: str, *words) -> None:
    """What is missing is found before anything has run, by a dry run too."""
    for more in ([], ["--dry-run"]):
        assert train(recipes, *words, *more) == 2
        error = capsys.readouterr().err
        assert said in error and "Traceback" not in error and calls(recipes) == ""


def test_missing_data_of_a_later_stage_are_found_first(recipes, capsys):
    text = (recipes / "s3.yaml").read_text()
    (recipes / "s3.yaml").write_text(text.replace("/data}]", "/data}, {path: gone}]"))
    missing_later(recipes, capsys, "s3.yaml: data.sources: data 'gone' does not exist")
    root = recipes.parent / "root"
    missing_later(recipes, capsys, f"data '{root / 'gone'}' does not exist", f"data.root={root}")
    assert train(recipes, "--to", "s2") == 0


def test_a_batch_that_does_not_fit_the_processes_is_found_first(recipes, capsys):
    words = ("--processes", "2", "s2:train.global_batch_size=5", "s2:train.per_device_batch_size=2")
    missing_later(recipes, capsys, "s2.yaml: train.global_batch_size = 5 is not a multiple", *words)
    assert train(recipes, *words, "--hostfile", "hosts", "--dry-run") == 0  # so many are not known


def test_a_first_model_that_is_not_there_is_found_first(recipes, capsys):
    for model in ("/nope", "./nope", "nope"):
        missing_later(recipes, capsys, f"model = {model} is not a folder", "--out", "o", "--model", model)
    assert train(recipes, "--out", str(recipes.parent / "o"), "--model", "org/name", "--dry-run") == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": ["gone"]}, "pipeline.yaml: guard.data: gone does not exist"),
        ({"likelihood": ["gone"], "data_root": "root"}, "guard.likelihood: root/gone does not exist"),
        ({"tasks": ["synthetic_documents"], "data_root": "root"}, "guard.tasks: root/documents-test does not exist"),
        ({"tasks": ["nothing"]}, "guard.tasks: "),
    ],
)
def test_missing_data_of_the_guard_are_found_first(recipes, capsys, options, said):
    guarded(recipes, {}, **options)
    if "likelihood" in options or "tasks" in options:
        (recipes / "pipeline.yaml").write_text(json.dumps({"guard": options}))
    missing_later(recipes, capsys, said)
    assert train(recipes, "--dry-run", "--guard", "off") == 0


def test_a_dry_run_says_which_evaluations_are_kept(recipes, capsys):
    guarded(recipes, {"s0": 0.8, "s1": 0.8})
    assert train(recipes, "--to", "s1") == 0
    capsys.readouterr()
    assert train(recipes, "--to", "s1", "--from", "s1", "--dry-run") == 0
    start, _, after = capsys.readouterr().out.partition("stage s1")
    assert "guard start: evaluated, is kept" in start and "exact_match" not in start and sys.executable not in start
    assert "guard s1\n" in after  # of a model that will be another


def guarded(recipes, scores: dict, **options) -> None:
    (recipes / "pipeline.yaml").write_text(json.dumps({"guard": {"data": [str(recipes.parent / "data")], **options}}))
    (recipes.parent / "scores").write_text(json.dumps(scores))


def test_a_single_stage_is_held_against_the_model_it_starts_from(recipes, capsys):
    guarded(recipes, {"s2": 0.8, "s3": 0.79}, tolerance=0.05)
    for name in ("s1", "s2"):
        (recipes / f"{name}.yaml").unlink()
    (recipes.parent / "run/s2").mkdir()
    assert train(recipes) == 0
    assert calls(recipes) == "?s2 s3 ?s3"
    table = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| text (exact_match)"))
    assert "0.800" in table and "0.790" in table and "-0.010 to start" in table and "kept" in table


def test_the_guard_stops_after_the_stage_that_forgot(recipes, capsys):
    guarded(recipes, {"s0": 0.8, "s1": 0.81, "s2": 0.5, "s3": 0.9}, tolerance=0.05)
    assert train(recipes) == 3
    assert calls(recipes) == "?s0 s1 ?s1 s2 ?s2"  # never the third
    said = capsys.readouterr()
    assert "stopped by the guard after s2" in said.err and "FORGOTTEN" in said.out
    assert "After s2: text forgotten." in (recipes.parent / "run/guard/guard.md").read_text()
    assert train(recipes) == 3  # still so, and nothing is evaluated twice
    assert calls(recipes) == ""
    assert train(recipes, "--guard", "flag") == 0
    assert calls(recipes) == "s3 ?s3"
    assert "flagged after s2" in capsys.readouterr().out


def test_a_harmless_run_passes_the_guard(recipes):
    guarded(recipes, {"s0": 0.8, "s1": 0.78, "s2": 0.79, "s3": 0.77}, tolerance=0.05)
    assert train(recipes) == 0
    assert calls(recipes) == "?s0 s1 ?s1 s2 ?s2 s3 ?s3"
    assert train(recipes, "--guard", "off", "--from", "s3") == 0
    assert calls(recipes) == "s3"
    assert train(recipes) == 0  # another model than the one that was evaluated
    assert calls(recipes) == "?s3"


def test_the_first_model_is_built_when_it_is_missing(recipes, monkeypatch):
    from training.pipeline import commands

    out = recipes.parent / "new"
    code = f"import os, sys; os.makedirs(sys.argv[1]); open({str(recipes.parent / 'calls')!r}, 'a').write('new ')"
    monkeypatch.setattr(commands, "build_command", lambda pipeline, path: [sys.executable, "-c", code, path])
    (recipes / "pipeline.yaml").write_text("build: {preset: tiny}\n")
    assert train(recipes, "--out", str(out)) == 0
    assert calls(recipes) == "new s1 s2 s3" and (out / "untrained").is_dir()
    assert train(recipes, "--out", str(out), "--from", "s3") == 0
    assert calls(recipes) == "s3"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["max_stepz=3"], "unknown key 'max_stepz'"),
        (["output_dir=x"], "use --out"),
        (["--from", "nine"], "no stage 'nine'; it has s1, s2, s3"),
        (["--processes", "0"], "must be 1 or more"),
    ],
)
def test_mistakes_are_one_line_and_code_2(recipes, capsys, words, said):
    assert train(recipes, *words) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_words_may_stand_before_and_after_options(recipes, capsys):
    assert train(recipes, "max_steps=5", "--dry-run", "log_steps=2") == 0
    with pytest.raises(SystemExit):
        train(recipes, "--dry-run", "--no-such-option")


def test_sigterm_reaches_the_stage_and_the_run_can_go_on(recipes):
    order(recipes, s1="wait")
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = train(recipes)
        finally:
            os._exit(code)
    deadline = time.monotonic() + 20
    while not (recipes.parent / "waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75
    order(recipes)
    calls(recipes)
    assert train(recipes) == 0
    assert calls(recipes) == "s1+ s2 s3"


def test_a_signal_between_two_stages_is_heard(recipes, monkeypatch, capsys):
    from training.pipeline import marks

    finish = marks.finish

    def finish_and_be_stopped(output):
        finish(output)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(marks, "finish", finish_and_be_stopped)
    assert train(recipes) == 75
    assert calls(recipes) == "s1" and "run the same command again to go on" in capsys.readouterr().err
