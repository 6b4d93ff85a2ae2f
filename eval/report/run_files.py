"""What a run folder holds, read once and leniently: whatever is missing is None or empty, and its section is left out.

Written by training (`stageN/{trainer_state,trainable,heldout,throughput,recipe}.json`), by evaluation
(`eval/stageN*.json`) and by the demo (`results.json`).
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.results_file import Result
from eval.table import collect, stage_files

logger = logging.getLogger(__name__)

TITLES = {
    "stage0": "untrained",
    "stage1": "alignment",
    "stage2": "instruction tuning",
    "stage3": "long context",
    "stage4": "medical experts",
}


@dataclass
class Stage:
    """One training stage: its loss log, held-out losses, trainable table and throughput."""

    name: str
    title: str
    losses: list[tuple[float, float]] = field(default_factory=list)  # (step, loss)
    heldout: dict[str, Any] = field(default_factory=dict)
    trainable: list[dict[str, Any]] = field(default_factory=list)
    throughput: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> str:
        return self.name.removeprefix("stage")


@dataclass
class Run:
    """Everything the report shows. `evaluations` are the results files of the newest evaluated stage."""

    folder: Path
    stages: list[Stage]
    results: dict[str, Any]
    evaluations: list[dict[str, Any]]
    newest: str | None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All sample rows of the newest evaluated stage."""
        return [row for evaluation in self.evaluations for row in evaluation.get("samples", [])]

    def as_results(self) -> list[Result]:
        """The evaluations as results files are read, one each; what a file lacks is empty."""
        empty = {"tasks": {}, "samples": [], "provenance": {}}
        return [Result(self.folder, {**empty, **one}, "", self.folder.name) for one in self.evaluations]

    @property
    def provenance(self) -> dict[str, Any]:
        return self.evaluations[0].get("provenance", {}) if self.evaluations else {}


def read_run(folder: str | Path) -> Run:
    """Reads a run folder. Raises FileNotFoundError when there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such run folder")
    results = _json(folder / "results.json") or {}
    results = {**results, **collect(folder)}  # the evaluation files are the newer truth
    files = stage_files(folder)
    newest = next(reversed(files), None)
    evaluations = [evaluation for file in files.get(newest or "", []) if (evaluation := _json(file))]
    stages = [
        _stage(path) for path in sorted(folder.glob("stage[0-9]*"), key=lambda p: p.name) if _is_trained(path)
    ]  # fmt: skip
    return Run(folder, stages, results, evaluations, newest)


def _is_trained(path: Path) -> bool:
    return path.is_dir() and any((path / name).exists() for name in ("trainer_state.json", "trainable.json"))


def _stage(path: Path) -> Stage:
    history = (_json(path / "trainer_state.json") or {}).get("log_history", [])
    return Stage(
        name=path.name,
        title=TITLES.get(path.name, ""),
        losses=[(float(entry["step"]), float(entry["loss"])) for entry in history if "loss" in entry],
        heldout=_json(path / "heldout.json") or {},
        trainable=_json(path / "trainable.json") or [],
        throughput=_json(path / "throughput.json") or {},
        recipe=_json(path / "recipe.json") or {},
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read: %s", path, error)
        return None
