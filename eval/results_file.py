"""Opening results files again: what reports, comparisons and rescoring read, checked before anything is made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.results import FORMAT

Row = dict[str, Any]
_PARTS = {"tasks": dict, "samples": list, "provenance": dict}


class NoResultsError(ValueError):
    """A file that holds no results of an evaluation; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Result:
    """A results file. `label` names its model, short, and unlike the others it is shown with."""

    path: Path
    data: dict[str, Any]
    digest: str
    label: str = ""

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """Figures by the task's key."""
        return self.data["tasks"]

    @property
    def provenance(self) -> dict[str, Any]:
        return self.data["provenance"]

    @property
    def model(self) -> str:
        return str(self.data.get("model") or "")

    def about(self, task: str) -> dict[str, Any]:
        """What the file says of how a task was asked, on which data, and of the time it took."""
        return self.provenance.get("tasks", {}).get(task, {})

    @property
    def served(self) -> bool:
        """Whether a server answered, which makes the prompt itself and shows it to nobody."""
        return self.model.startswith("openai:")

    def rows(self, task: str) -> list[Row]:
        """All rows of a task, those under a control too."""
        return [row for row in self.data["samples"] if row["task"] == task]

    def asked(self, task: str) -> list[Row]:
        """The rows of a task that stand under no control: those its figures are about."""
        return [row for row in self.rows(task) if row["control"] is None]

    def video(self, task: str) -> dict[str, Any]:
        """How frames of videos were chosen in a task: the model's options under the task's own."""
        own = {key: value for key, value in (self.about(task).get("video") or {}).items() if value is not None}
        return {**((self.provenance.get("model") or {}).get("video") or {}), **own}


def read_results(path: str | Path) -> Result:
    """A results file of `eval/run.py`. Raises NoResultsError, FileNotFoundError, OSError."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such results file")
    content = path.read_bytes()
    try:
        data = json.loads(content)
    except ValueError as error:
        raise NoResultsError(f"{path} is no results file of eval/run.py: not JSON ({error})") from error
    wrong = [
        name for name, kind in _PARTS.items() if not isinstance(data, dict) or not isinstance(data.get(name), kind)
    ]
    if wrong:
        raise NoResultsError(f"{path} is no results file of eval/run.py: it has no {', '.join(wrong)}")
    if data.get("format", FORMAT) != FORMAT:
        raise NoResultsError(f"{path} has format {data['format']}; this version reads format {FORMAT}")
    for place, row in enumerate(data["samples"]):
        lacking = [k for k in ("id", "task", "control", "output", "score") if not isinstance(row, dict) or k not in row]
        if lacking:
            raise NoResultsError(f"{path}: sample {place} has no {', '.join(lacking)}")
    return Result(path, data, hashlib.sha256(content).hexdigest(), short_name(str(data.get("model") or path.stem)))


def read_several(paths: Sequence[str | Path]) -> list[Result]:
    """Results files with labels that differ. Raises as `read_results`."""
    results = [read_results(path) for path in paths]
    labels = distinct([result.label for result in results], [result.path for result in results])
    return [Result(r.path, r.data, r.digest, label) for r, label in zip(results, labels)]


def short_name(model: str) -> str:
    """`runs/demo/export/` → `export`; `org/name` → `name`; `openai:NAME@http://…` → `NAME`."""
    name = model.removeprefix("openai:").split("@http")[0] if model.startswith("openai:") else model
    return name.rstrip("/").rsplit("/", 1)[-1] or model


def distinct(labels: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Labels as they are; where two are equal the name of the file is added in brackets, then a number."""
    named = [f"{x} ({p.stem})" if labels.count(x) > 1 else x for x, p in zip(labels, paths)]
    seen: dict[str, int] = {}
    unique = []
    for name in named:
        seen[name] = seen.get(name, 0) + 1
        unique.append(f"{name} #{seen[name]}" if named.count(name) > 1 else name)
    return unique
