"""The step runner of the demo: order, parallel children, logs, and a failure that says which command and why."""

import re
import sys
from pathlib import Path

import pytest

from vlm.cli.steps import CAUSE, Runner, Step, StepFailed, cause, last_line


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_steps_run_in_order_and_log(tmp_path, capsys):
    mark = tmp_path / "order.txt"
    steps = [
        Step("first", [python(f"open({str(mark)!r}, 'a').write('1'); print('hello')")], 1),
        Step("second", [python(f"open({str(mark)!r}, 'a').write('2')")], 1),
    ]
    runner = Runner(steps, tmp_path / "logs", tmp_path)
    runner.run()
    assert mark.read_text() == "12"
    assert set(runner.took) == {"first", "second"}
    log = next((tmp_path / "logs").glob("01-first*.log")).read_text()
    assert log.startswith("$ ") and "hello" in log
    assert "[ 2/2] second  done" in capsys.readouterr().out


def test_no_more_than_at_once_children(tmp_path):
    code = (
        "import os, time, pathlib; p = pathlib.Path('alive'); p.mkdir(exist_ok=True); f = p / str(os.getpid());"
        "f.touch(); time.sleep(0.3); n = len(list(p.iterdir())); pathlib.Path('seen').open('a').write(f'{n} ');"
        "f.unlink()"
    )
    Runner([Step("many", [python(code)] * 5, 1, at_once=2)], tmp_path / "logs", tmp_path).run()
    seen = [int(word) for word in (tmp_path / "seen").read_text().split()]
    assert len(seen) == 5 and max(seen) <= 2


def test_a_failure_names_command_log_and_reason_and_stops(tmp_path):
    never = tmp_path / "never"
    steps = [
        Step("bad", [python("import sys; print('the reason'); sys.exit(3)"), python("import time; time.sleep(60)")], 1),
        Step("later", [python(f"open({str(never)!r}, 'w')")], 1),
    ]
    with pytest.raises(StepFailed) as error:
        Runner(steps, tmp_path / "logs", tmp_path).run()
    message = str(error.value)
    assert "exit code 3" in message and "the reason" in message and "01-bad-1.log" in message
    assert not never.exists()


LOG = """$ deepspeed stage1.py
[2026-01-01 00:00:00,000] [INFO] [launch.py:245:main] process 2 spawned
a 1/4: loss 13.312
[rank 1] TooManyBadSamples: 1 of the first 16 samples are bad:
  data.json:1: two pictures
mend the data
[rank0]: Traceback (most recent call last):
[rank0]: RuntimeError: Connection closed by peer
"""


def test_the_cause_of_any_process_is_shown_instead_of_the_end(tmp_path):
    assert cause(LOG.splitlines()) == LOG.splitlines()[3:6]
    step = Step("bad", [python(f"import sys; print({LOG!r}); sys.exit(1)")], 1)
    with pytest.raises(StepFailed) as error:
        Runner([step], tmp_path / "logs", tmp_path).run()
    lines = str(error.value).splitlines()
    assert lines[:3] == LOG.splitlines()[3:6] and lines[-1].startswith("exit code 1") and len(lines) == 5
    for other in ("group      tensors", "a 2/4: loss 13.1", "Traceback (most recent", "[2026-01-01] [INFO]"):
        assert cause(["[rank 1] DataError: x", f"{other}  parameters"]) == ["[rank 1] DataError: x"]
    assert len(cause(["DataError: x", *["more"] * 50])) == 12


def test_a_traceback_is_no_cause_told_in_words():
    traceback = ["Traceback (most recent call last):", '  File "x.py", line 1', "ValueError: x"]
    assert cause(traceback) == [] and cause(["all is well"]) == []
    assert cause([*traceback, "DataError: y"]) == ["DataError: y"]


def test_every_error_of_a_stage_is_known_as_a_cause():
    names = ["RecipeError"]
    for folder in ("training", "vlm"):
        for path in (Path(__file__).parents[3] / folder).rglob("*.py"):
            names += re.findall(r"^class (\w+)\(\w*(?:RadioVLMError|RecipeError|DataError)\)", path.read_text(), re.M)
    assert len(names) > 5 and [name for name in names if not CAUSE.match(f"{name}: x")] == []


def test_last_line_sees_through_progress_bars(tmp_path):
    log = tmp_path / "x.log"
    log.write_bytes(b"start\n\x1b[32m 10%|#  | 1/10\r 20%|## | 2/10 [00:05<00:20]\r")
    assert last_line(log) == "20%|## | 2/10 [00:05<00:20]"
    log.write_text("")
    assert last_line(log) == ""
