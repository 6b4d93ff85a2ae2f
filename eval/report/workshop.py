"""The parts of the page about how the model was made: what trained, how fast, on what, and how to repeat a score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from eval.report.charts import timeline
from eval.report.parts import FAINT_GAP, amount, count, facts, fold, plot, rate, section, stage_head, table
from eval.report.run_files import Run, Stage

_SPEED = {
    "steps": "steps",
    "seconds": "seconds",
    "samples_per_second": "samples / s",
    "tokens_per_second": "tokens / s",
    "processes": "processes",
    "peak_memory_mb": "memory, MB",
}


def trainable(run: Run) -> str:
    """What each stage trained, with which learning rates; every optimizer group below."""
    stages = [stage for stage in run.stages if stage.trainable]
    if not stages:
        return ""
    modules = list(dict.fromkeys(_module(row) for stage in stages for row in stage.trainable))
    head = ["", *(stage_head(stage.number, stage.title) for stage in stages)]
    rows = [[escape(module.replace("_", " ")), *(_trained(stage, module) for stage in stages)] for module in modules]
    groups = "".join(fold(f"Stage {stage.number}, every optimizer group", _groups(stage.trainable)) for stage in stages)
    lede = "Parameters that each stage moved, and the learning rates they moved at. All others stayed bit for bit."
    return section("What was trained", lede, table(head, rows, plain=True) + FAINT_GAP + groups)


def _module(row: dict[str, Any]) -> str:
    return str(row["group"]).split("/")[0]


def _trained(stage: Stage, module: str) -> str:
    rows = [row for row in stage.trainable if _module(row) == module and row["trainable"]]
    if not rows:
        present = any(_module(row) == module for row in stage.trainable)
        return f'<span class="faint">{"frozen" if present else "–"}</span>'
    rates = sorted({row["lr"] for row in rows if row["lr"] is not None}, reverse=True)
    return f"{count(sum(row['parameters'] for row in rows))}<small>{escape(', '.join(map(rate, rates)))}</small>"


def _groups(rows: Sequence[dict[str, Any]]) -> str:
    head = ["", "tensors", "parameters", "optimizer", "learning rate", "decay"]
    cells = [
        [
            escape(row["group"]),
            str(row["tensors"]),
            count(row["parameters"]),
            escape(row["optimizer"] or "frozen"),
            rate(row["lr"]),
            rate(row["weight_decay"]),
        ]
        for row in rows
    ]
    return table(head, cells, plain=True)


def speed(run: Run) -> str:
    """Where the time went, throughput of every stage, and the machine."""
    parts = []
    steps = {k: float(v) for k, v in (run.results.get("steps") or {}).items() if isinstance(v, (int, float))}
    if steps:
        parts.append(plot(timeline(steps)) + FAINT_GAP)
    measured = [stage for stage in run.stages if stage.throughput]
    if measured:
        rows = [
            [f"stage {stage.number}", *(amount(stage.throughput.get(name)) for name in _SPEED)] for stage in measured
        ]
        parts.append(table(["", *_SPEED.values()], rows, plain=True) + FAINT_GAP)
    machine = run.provenance.get("machine")
    if machine:
        parts.append(facts(_machine(run, machine)))
    return section("Speed and machine", "", "".join(parts))


def _machine(run: Run, machine: dict[str, Any]) -> dict[str, str]:
    found = {"processor": f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('memory_gib')} GiB"}
    found["accelerators"] = ", ".join(machine.get("gpus") or []) or "none"
    threads = machine.get("threads", 1)
    for evaluation in run.evaluations:
        for task, spent in evaluation.get("provenance", {}).get("tasks", {}).items():
            seconds = spent.get("seconds")
            if seconds:
                asked = spent.get("requests", 0)
                pace = f"{asked} prompts in {seconds:.1f} s, {asked / seconds:.0f} a second"
                found[f"examining {task}"] = f"{pace}, {threads} thread{'s' * (threads != 1)}"
    return found


def small_print(run: Run) -> str:
    """Enough to repeat or doubt a score: seeds, versions, data, decoding, prompts, template."""
    parts = []
    for evaluation in run.evaluations:
        about = evaluation.get("provenance", {})
        tasks = about.get("tasks", {})
        template = (about.get("model") or {}).get("chat_template")
        extra = f'<p class="soft">Chat template</p><pre>{escape(template)}</pre>' if template else ""
        parts.append(fold(", ".join(tasks) or str(evaluation.get("model")), facts(_source(evaluation)) + extra))
    return section("Small print", "What is needed to repeat a score, or to doubt it.", "".join(parts))


def _source(evaluation: dict[str, Any]) -> dict[str, str]:
    """Where the scores of one results file come from."""
    about = evaluation.get("provenance", {})
    found = {
        "checkpoint": evaluation.get("model", ""),
        "time": about.get("time", ""),
        "seed of the controls": str(about.get("seed")),
        "decoding": json.dumps(about.get("decoding")),
        "versions": ", ".join(f"{name} {version}" for name, version in (about.get("versions") or {}).items()),
        "commit": about.get("git_commit") or "not in a repository",
        "command": " ".join(about.get("command") or []),
    }
    for task, of_task in about.get("tasks", {}).items():
        data = of_task.get("data", {})
        digest = str(data.get("sha256"))[:16]
        found[f"data, {task}"] = f"{data.get('path')}, seed {data.get('seed', '–')}, sha256 {digest}…"
        rows = evaluation.get("samples", [])
        prompt = next((row["prompt"] for row in rows if row["task"] == task and row["prompt"]), None)
        if prompt:
            found[f"a prompt, {task}"] = prompt
    return found
