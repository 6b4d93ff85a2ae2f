"""Chains of commands, a few side by side: a chain that fails stops alone, one that is finished is not run again.

Not a command itself. Beside each chain's results lie `STEP.done` (the command that made them, its seconds) and logs;
a step is done when its file names the very command that is asked for now and all steps before it are done.
"""

import json
import os
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from vlm.cli.steps import last_line

POLL_SECONDS = 0.5


@dataclass
class Chain:
    """Commands of one variant in order. `error`: why it stopped; `seconds`: of each step that is done."""

    name: str
    folder: Path
    commands: dict[str, list[str]]
    seconds: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    def read_finished(self) -> None:
        """Looks up which steps an earlier run finished; what comes behind the first unfinished one is forgotten."""
        self.seconds = {}
        for step, command in self.commands.items():
            try:
                record = json.loads(self._record(step).read_text())
            except (OSError, ValueError):
                record = {}
            if len(self.seconds) < list(self.commands).index(step) or record.get("command") != command:
                self._record(step).unlink(missing_ok=True)
                continue
            self.seconds[step] = float(record.get("seconds", 0.0))

    @property
    def next_step(self) -> str | None:
        """The first step that is not done; None when all are."""
        return next((step for step in self.commands if step not in self.seconds), None)

    def log(self, step: str) -> Path:
        return self.folder / f"{step}.log"

    def finish(self, step: str, seconds: float) -> None:
        self.seconds[step] = round(seconds, 2)
        record = {"command": self.commands[step], "seconds": self.seconds[step]}
        self._record(step).write_text(json.dumps(record, indent=1) + "\n")

    def fail(self, step: str, code: int) -> None:
        lines = self.log(step).read_text(errors="replace").splitlines()
        words = [line.strip() for line in lines if "Error" in line]
        reason = words[-1] if words else (lines[-1].strip() if lines else "no output")
        self.error = f"{step} ended with exit code {code}: {reason[:300]} (log: {self.log(step)})"

    def _record(self, step: str) -> Path:
        return self.folder / f"{step}.done"


@dataclass
class _Running:
    chain: Chain
    step: str
    process: subprocess.Popen
    started: float


def run_chains(
    chains: list[Chain], at_once: int, env: dict[str, str], report, cwd: Path | None = None, fill=lambda word: word
) -> None:
    """Runs what is not finished; returns when every chain is done or has stopped.

    Args:
        env: Added to the environment.
        report: Called with (running: list of (name, step, last line of its log)) at every look, and with a string
            when a chain ends.
        fill: Called on every word of a command before it starts.
    """
    waiting = [chain for chain in chains if chain.next_step]
    running: list[_Running] = []

    def start(chain: Chain) -> None:
        step = chain.next_step
        command = [fill(word) for word in chain.commands[step]]
        chain.folder.mkdir(parents=True, exist_ok=True)
        with chain.log(step).open("w") as file:
            file.write(f"$ {shlex.join(command)}\n")
            file.flush()
            process = subprocess.Popen(
                command, cwd=cwd, env={**os.environ, **env}, stdout=file, stderr=subprocess.STDOUT
            )
        running.append(_Running(chain, step, process, time.monotonic()))

    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                start(waiting.pop(0))
            time.sleep(POLL_SECONDS)
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                chain, code = job.chain, job.process.returncode
                if code:
                    chain.fail(job.step, code)
                    report(f"{chain.name}: {chain.error}")
                    continue
                chain.finish(job.step, time.monotonic() - job.started)
                if chain.next_step:
                    start(chain)
                else:
                    report(f"{chain.name}: done")
            report([(job.chain.name, job.step, last_line(job.chain.log(job.step))) for job in running])
    finally:
        for job in running:
            job.process.terminate()
            job.process.wait()
