"""The forgetting guard: scores of every model of a pipeline, and which fell by more than is tolerated.

Judges results files of eval/run.py. Every score lies in [0, 1] and higher is better.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from training.pipeline.folder import Guard
from training.recipe import RecipeError


@dataclass(frozen=True)
class Score:
    """One task of one evaluation: headline metric, its value, and of how many questions."""

    metric: str
    value: float
    n: int


@dataclass(frozen=True)
class Evaluation:
    """All scores of one model; `name` is its stage's, or "start"."""

    name: str
    scores: dict[str, Score]


@dataclass(frozen=True)
class Verdict:
    """A score held against an earlier one."""

    task: str
    score: float
    reference: float
    reference_name: str
    tolerance: float

    @property
    def drop(self) -> float:
        return self.reference - self.score

    @property
    def forgotten(self) -> bool:
        return self.drop > self.tolerance + 1e-9


def settings_hash(guard: Guard, data_root: str) -> str:
    """What an evaluation depends on beside the model: with other questions earlier scores say nothing."""
    asked = {key: getattr(guard, key) for key in ("tasks", "data", "likelihood", "limit")}
    return hashlib.sha256(json.dumps([asked, data_root], sort_keys=True).encode()).hexdigest()[:16]


def read_results(path: Path, name: str) -> Evaluation:
    """The headline figures of a results file of eval/run.py.

    Raises:
        RecipeError: a task has no score (every question failed).
    """
    results = json.loads(path.read_text(encoding="utf-8"))
    scores = {}
    for task, figures in results["tasks"].items():
        metric = results["provenance"]["tasks"][task]["metrics"][0]
        value, n = figures.get(metric), figures["n"]
        if value is None or not math.isfinite(value):
            raise RecipeError(f"the guard's task {task} has no score in {path}: none of its {n} questions was answered")
        scores[task] = Score(metric, float(value), int(n))
    return Evaluation(name, scores)


def judge(evaluations: list[Evaluation], guard: Guard) -> list[Verdict]:
    """The newest evaluation against the earlier ones, task by task; [] for the first.

    `compare` decides the reference: "best" of all earlier scores, the "previous" or the "first" one.
    """
    *earlier, newest = evaluations
    verdicts = []
    for task, score in newest.scores.items():
        known = [one for one in earlier if task in one.scores]
        if not known:
            continue
        chosen = {
            "best": max(known, key=lambda one: one.scores[task].value),
            "previous": known[-1],
            "first": known[0],
        }[guard.compare]
        verdicts.append(
            Verdict(task, score.value, chosen.scores[task].value, chosen.name, guard.tolerance_of(task))
        )
    return verdicts


def table(evaluations: list[Evaluation], verdicts: list[Verdict]) -> str:
    """Markdown: a row a task, a column a model, and how the newest stands; each score with its standard error."""
    tasks = list(dict.fromkeys(task for one in evaluations for task in one.scores))
    judged = {verdict.task: verdict for verdict in verdicts}
    rows = [["task (metric)", *(one.name for one in evaluations), "change", "tolerated", ""]]
    for task in tasks:
        known = [one.scores.get(task) for one in evaluations]
        metric = next(score.metric for score in known if score)
        cells = [f"{score.value:.3f} ± {_error(score):.3f}" if score else "" for score in known]
        verdict = judged.get(task)
        change, tolerated, word = "", "", ""
        if verdict:
            change = f"{0.0 - round(verdict.drop, 3):+.3f} to {verdict.reference_name}"
            tolerated = f"-{verdict.tolerance:.3f}"
            word = "FORGOTTEN" if verdict.forgotten else "kept"
        rows.append([f"{task} ({metric})", *cells, change, tolerated, word])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in padded]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _error(score: Score) -> float:
    """Standard error of a mean of n scores of a question in [0, 1], at most that of right and wrong answers."""
    return math.sqrt(max(score.value * (1 - score.value), 0.0) / max(score.n, 1))


def write_report(folder: Path, evaluations: list[Evaluation], history: dict[str, list[Verdict]], guard: Guard) -> None:
    """`guard.json` and `guard.md` in `folder`; history: stage -> its verdicts."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "compare": guard.compare,
        "action": guard.action,
        "evaluations": [
            {"name": one.name, "scores": {task: asdict(score) for task, score in one.scores.items()}}
            for one in evaluations
        ],
        "verdicts": {
            name: [asdict(verdict) | {"forgotten": verdict.forgotten} for verdict in verdicts]
            for name, verdicts in history.items()
        },
    }
    (folder / "guard.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    newest = next(reversed(history.values()), [])
    forgotten = {name: [v.task for v in verdicts if v.forgotten] for name, verdicts in history.items()}
    words = [f"After {name}: {', '.join(tasks)} forgotten." for name, tasks in forgotten.items() if tasks]
    parts = ["# What the stages keep", table(evaluations, newest), "\n".join(words) or "Nothing forgotten."]
    (folder / "guard.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
