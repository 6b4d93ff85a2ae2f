"""Enough of a results file, in words, to repeat a score or to doubt it: its origin, how it was asked and judged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

MOST = 4  # different values of a metric's option that are still listed


def run_facts(data: Mapping[str, Any]) -> dict[str, str]:
    """What is the same for all tasks of a results file."""
    about = data.get("provenance", {})
    model = about.get("model") or {}
    machine = about.get("machine") or {}
    found = {
        "checkpoint": str(data.get("model", "")),
        "fingerprint": model.get("fingerprint"),
        "class": _joined(model.get("class"), model.get("dtype"), _parameters(model)),
        "geometry": _compact(model.get("geometry")),
        "frames of videos": _compact(model.get("video")),
        "time": about.get("time"),
        "command": " ".join(about.get("command") or []),
        "commit": about.get("git_commit") or "not in a repository",
        "versions": ", ".join(f"{name} {version}" for name, version in (about.get("versions") or {}).items()),
        "machine": _machine(machine),
        "seed": about.get("seed"),
        "decoding": _compact(about.get("decoding")),
        "batch size": _joined(about.get("batch_size"), _processes(about.get("processes"))),
        "judge": _compact(about.get("judge")),
        "asked blind": "yes: without images and videos" if about.get("blind") else None,
    }
    for note in about.get("rescored") or []:
        settings = f" with {_compact(note['settings'])}" if note.get("settings") else ""
        found["rescored"] = f"{', '.join(note['metrics'])}{settings}, from {note['file']}, sha256 {note['sha256']}"
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def task_facts(data: Mapping[str, Any], task: str) -> dict[str, str]:
    """How one task was asked and judged, and on which data."""
    about = data.get("provenance", {}).get("tasks", {}).get(task, {})
    of_data = about.get("data") or {}
    rows = [row for row in data.get("samples", []) if row["task"] == task]
    where = [of_data.get("repository"), of_data.get("config"), of_data.get("path")]
    found = {
        "data": _joined(*dict.fromkeys(str(part) for part in where if part)),
        "split, revision": _joined(of_data.get("split"), of_data.get("revision")),
        "data sha256": of_data.get("sha256"),
        "questions": _joined(of_data.get("asked"), f"of {of_data['n']}" if of_data.get("n") else None),
        "task": about.get("task"),
        "prompt template": of_data.get("prompt"),
        "a prompt as the model saw it": next((row["prompt"] for row in rows if row.get("prompt")), None),
        "longest answer": f"{about['max_new_tokens']} tokens" if about.get("max_new_tokens") else None,
        "stop strings": _compact(about.get("stop") or None),
        "frames": _compact({k: v for k, v in (about.get("video") or {}).items() if v is not None} or None),
        "figures": ", ".join(about.get("figures") or about.get("metrics") or []),
        "options of the metrics": _options(rows),
    }
    for name, of_metric in (about.get("definitions") or {}).items():
        code = f" (code {of_metric['code']})" if of_metric.get("code") else ""
        found[f"definition of {name}"] = of_metric.get("definition", "") + code
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def _options(rows: Sequence[Mapping[str, Any]]) -> str:
    """Single-valued options that the samples give their metrics, e.g. the rule that reads a letter."""
    values: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, value in (row.get("scoring") or {}).items():
            if isinstance(value, (str, int, float, bool)):
                values.setdefault(name, {})[str(value)] = None
    return "; ".join(f"{name}: {', '.join(found)}" for name, found in values.items() if len(found) <= MOST)


def _joined(*parts: Any) -> str:
    return ", ".join(str(part) for part in parts if part not in (None, ""))


def _compact(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _parameters(model: Mapping[str, Any]) -> str | None:
    return f"{model['parameters']:,} parameters" if model.get("parameters") else None


def _processes(number: int | None) -> str | None:
    return f"{number} processes" if number and number > 1 else None


def _machine(machine: Mapping[str, Any]) -> str:
    gpus = ", ".join(machine.get("gpus") or []) or ("no accelerator" if machine else "")
    cores = f"{machine['cores']} cores" if machine.get("cores") else None
    return _joined(machine.get("cpu"), cores, gpus)
