"""Running a list of steps as child processes with one live line on the terminal and one log file a command.

The demo is a user of the three doors like any other: every step is a command a person could type; its log keeps it.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

REFRESH_SECONDS = 0.5
PLAIN_REFRESH_SECONDS = 20.0  # when the output is a file or a CI log, a line now and then instead of a live one
# What training/run.py logs when a stage fails, on any process; the tracebacks of those it takes along come last.
CAUSE = re.compile(r"(\[rank \d+\] )?[A-Z]\w*(Error|Samples|Loss): ")
# A line of the launcher or of another process: a traceback, the table of what trains, progress.
OF_OTHERS = re.compile(r"\[|Traceback |group +tensors |\S+ \d+/\d+: ")
CAUSE_LINES = 12
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class StepFailed(Exception):
    """A command ended with an error; the message holds the cause that its log names, the command and its exit code
    (`code`), and without a named cause the end of the log."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


@dataclass
class Step:
    """Commands, `at_once` of them side by side; `seconds`: what they took on two cores, for the remaining time; None
    where that is not known, and then none is shown."""

    title: str
    commands: list[list[str]]
    seconds: float | None = None
    names: list[str] = field(default_factory=list)
    at_once: int = 2


@dataclass
class Child:
    """A running command and where its output goes."""

    command: list[str]
    log: Path
    process: subprocess.Popen

    def check(self) -> None:
        if self.process.returncode != 0:
            lines = self.log.read_text(errors="replace").splitlines()
            told = cause(lines)
            head = [shlex.join(self.command), f"exit code {self.process.returncode}; the log is {self.log}"]
            message = "\n".join([*told, *head] if told else [*head, *lines[-25:]])
            raise StepFailed(message, self.process.returncode)


def cause(lines: list[str]) -> list[str]:
    """The first error that a process of training told in words, with the lines that belong to it; [] if none did.

    The last line of a traceback is none: there the end of the log says more.
    """
    traced = False
    for index, line in enumerate(lines):
        if line.startswith("Traceback "):
            traced = True
        elif traced:
            traced = line[:1].isspace()
        elif CAUSE.match(line):
            found = [line]
            for more in lines[index + 1 : index + CAUSE_LINES]:
                if OF_OTHERS.match(more) or CAUSE.match(more):
                    break
                found.append(more)
            return found
    return []


def clock(seconds: float) -> str:
    seconds = max(0, round(seconds))
    return f"{seconds // 60}:{seconds % 60:02d}"


def last_line(path: Path) -> str:
    """The newest visible line of a log, where progress bars overwrite themselves with carriage returns."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 4096))
        text = ANSI.sub("", file.read().decode(errors="replace"))
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return lines[-1] if lines else ""


class Runner:
    """Runs steps in order. `took` maps a step's title to its wall seconds."""

    def __init__(self, steps: list[Step], log_dir: Path, cwd: Path, env: dict[str, str] | None = None):
        self.steps, self.log_dir, self.cwd = steps, log_dir, cwd
        self.env = {**os.environ, **(env or {})}
        self.took: dict[str, float] = {}
        self.live = sys.stdout.isatty()
        self.running: list[Child] = []
        log_dir.mkdir(parents=True, exist_ok=True)

    def run(self, more: list[Step] | None = None) -> None:
        """Runs the steps, or `more` steps found out later; numbers go on."""
        first = len(self.steps) if more else 0
        self.steps += more or []
        for index in range(first, len(self.steps)):
            self.run_step(index)

    def run_step(self, index: int) -> None:
        """Runs one of the steps, whatever became of those before it."""
        step = self.steps[index]
        started = time.monotonic()
        head = f"[{index + 1:2d}/{len(self.steps)}] {step.title}"
        coming = [other.seconds for other in self.steps[index:]]
        whole = None if None in coming else sum(coming)
        waiting = [(command, self._log_path(index, step, k)) for k, command in enumerate(step.commands)]
        running = self.running = []
        shown = 0.0
        try:
            while waiting or running:
                while waiting and len(running) < step.at_once:
                    running.append(self._start(*waiting.pop(0)))
                time.sleep(REFRESH_SECONDS)
                now = time.monotonic()
                if self.live or now - shown >= PLAIN_REFRESH_SECONDS:
                    shown = now
                    self._show(head, now - started, whole, step.seconds, running)
                for child in [child for child in running if child.process.poll() is not None]:
                    running.remove(child)
                    child.check()
        finally:
            for child in running:
                child.process.terminate()
                child.process.wait()
        self.took[step.title] = time.monotonic() - started
        self._line(f"{head}  done in {clock(self.took[step.title])}", final=True)

    def _start(self, command: list[str], log: Path) -> "Child":
        if log.exists():  # of a run that failed and is repeated
            log.replace(log.with_suffix(".before.log"))
        with log.open("w") as file:
            file.write(f"$ {shlex.join(command)}\n")
            file.flush()
            process = subprocess.Popen(command, cwd=self.cwd, env=self.env, stdout=file, stderr=subprocess.STDOUT)
        return Child(command, log, process)

    def _log_path(self, index: int, step: Step, k: int) -> Path:
        slug = re.sub(r"[^a-z0-9]+", "-", step.title.lower()).strip("-")
        suffix = f"-{step.names[k]}" if step.names else (f"-{k + 1}" if len(step.commands) > 1 else "")
        return self.log_dir / f"{index + 1:02d}-{slug}{suffix}.log"

    def _show(
        self, head: str, elapsed: float, whole: float | None, own: float | None, running: list["Child"]
    ) -> None:
        status = " | ".join(last_line(child.log) for child in running)
        left = "" if whole is None else f", whole job about {clock(whole - min(elapsed, own))} left"
        self._line(f"{head}  {clock(elapsed)}{left}  {status}", final=False)

    def _line(self, text: str, final: bool) -> None:
        if not self.live:
            print(text[:240], flush=True)
            return
        width = os.get_terminal_size().columns
        print("\r\x1b[2K" + text[: width - 1], end="\n" if final else "", flush=True)
