"""Two results files, sample by sample: is the one model better, by how much, where, and may they be compared at all?

Differences are paired (both models saw the same questions, so the difficulty of a question cancels) and clustered by
image or video: `eval.bootstrap.paired_interval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.aggregates import Aggregate, Mean, calibration
from eval.bootstrap import PairedEstimate, paired_interval
from eval.judge import JUDGE
from eval.recorded import recorded_task
from eval.results_file import Result, Row
from eval.tasks.base import Task

NOISE = 1e-9


@dataclass(frozen=True)
class Change:
    """A sample that the two models answered with another score."""

    a: Row
    b: Row
    before: float
    after: float

    @property
    def kind(self) -> str:
        """`right → wrong`, `wrong → right`, or `worse` / `better` where no line was crossed."""
        if (self.before >= 0.5) != (self.after >= 0.5):
            return "wrong → right" if self.after >= 0.5 else "right → wrong"
        return "better" if self.after > self.before else "worse"


@dataclass
class TaskComparison:
    """One task of both files. `changed` starts with the largest changes for the worse."""

    key: str
    figure: str
    metric: str
    """What the scores of single samples are; `score`: each sample's own headline score."""
    estimate: PairedEstimate
    others: dict[str, PairedEstimate] = field(default_factory=dict)
    """Further figures of the task."""
    better: int = 0
    worse: int = 0
    equal: int = 0
    changed: list[Change] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class Comparison:
    """B against A."""

    a: Result
    b: Result
    tasks: list[TaskComparison]
    warnings: list[str]


def compare(a: Result, b: Result, metric: str | None = None) -> Comparison:
    """B against A in every task that both hold.

    Args:
        metric: compare this score of the samples; default: each task's headline figure.

    Raises ValueError without a common task, or where no common task has the metric.
    """
    common = [key for key in a.tasks if key in b.tasks]
    if not common:
        have = " and ".join(f"{r.path} has {', '.join(r.tasks) or 'none'}" for r in (a, b))
        raise ValueError(f"no task in common: {have}")
    compared = [_compare_task(key, a, b, metric) for key in common if metric is None or _has(metric, key, a, b)]
    if not compared:
        scores = sorted({name for key in common for row in a.asked(key) for name in row.get("scores") or {}})
        raise ValueError(
            f"no common task of both files has scores of {metric!r}; {a.path} has: {', '.join(scores)}. "
            "eval/rescore.py adds metrics to a results file"
        )
    warnings = _differences_of_runs(a, b)
    if metric and (left := [key for key in common if key not in [task.key for task in compared]]):
        warnings.append(f"no scores of {metric} in: {', '.join(left)}")
    for one, other in ((a, b), (b, a)):
        if alone := [key for key in one.tasks if key not in other.tasks]:
            warnings.append(f"only in {one.label}: {', '.join(alone)}")
    return Comparison(a, b, compared, warnings)


def _has(metric: str, key: str, *results: Result) -> bool:
    return all(_scored(result.asked(key), metric) for result in results)


def _scored(rows: Sequence[Row], metric: str) -> list[Row]:
    """The rows that have a score of that name; a judge's, for one, is in those alone that waited for it."""
    return [row for row in rows if metric in (row.get("scores") or {})]


def _compare_task(key: str, a: Result, b: Result, metric: str | None) -> TaskComparison:
    task = recorded_task(key, a.about(key), a.rows(key))
    rows_a, rows_b = (_by_id(result, key) for result in (a, b))
    figures = {metric: Mean(metric)} if metric else _figures(task, [*rows_a.values(), *rows_b.values()])
    counted = [task.counted(list(rows.values())) for rows in (rows_a, rows_b)]
    if metric:
        counted = [_scored(rows, metric) for rows in counted]
    estimates = {name: paired_interval(figure, *counted) for name, figure in figures.items()}
    judged = [_scored(rows, JUDGE) for rows in counted]
    if all(judged):
        estimates.setdefault(JUDGE, paired_interval(Mean(JUDGE), *judged))
    weighed = [[row for row in rows if calibration.weighed(row) is not None] for rows in counted]
    if all(weighed):
        estimates |= {one.name: paired_interval(one(), *weighed) for one in calibration.FIGURES}
    headline = next(iter(figures))
    score = metric or _score_of_samples(a.about(key), b.about(key), figures[headline])
    found = TaskComparison(key, headline, score or "score", estimates.pop(headline), estimates)
    for row in counted[0]:
        other = rows_b.get(row["id"])
        before, after = (None if r is None else _score(r, score) for r in (row, other))
        if before is None or after is None:
            continue
        if abs(after - before) <= NOISE:
            found.equal += 1
            continue
        found.better += after > before
        found.worse += after < before
        found.changed.append(Change(row, other, before, after))
    found.changed.sort(key=lambda c: (-abs(c.after - c.before), c.after > c.before, str(c.a["id"])))
    found.warnings = [*_missing(a, b, rows_a, rows_b), *_differences_of_tasks(a, b, key, rows_a, rows_b)]
    return found


def _score_of_samples(about_a: dict[str, Any], about_b: dict[str, Any], figure: Aggregate) -> str | None:
    """Which score of single samples is compared; None: each sample's own headline, where both runs have the same."""
    same = about_a.get("metrics") == about_b.get("metrics")
    return None if same else getattr(figure, "metric", None)


def _by_id(result: Result, key: str) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for row in result.asked(key):
        if row["id"] in rows:
            raise ValueError(f"{result.path}: task {key} has sample {row['id']!r} twice")
        rows[row["id"]] = row
    return rows


def _figures(task: Task, rows: Sequence[Row]) -> dict[str, Aggregate]:
    """The task's figures, headline first, as far as the rows hold what they need; else the mean of its first metric."""
    return {name: figure for name, figure in task.aggregates().items() if _computable(figure, rows)} or {
        task.metrics[0]: Mean(task.metrics[0])
    }


def _computable(figure: Aggregate, rows: Sequence[Row]) -> bool:
    try:
        prepared = figure.prepared(rows)
        for row in rows:
            prepared.statistics(row)
    except (KeyError, ValueError):
        return False
    return True


def _score(row: Row, metric: str | None) -> float | None:
    """The sample's score under `metric`, or its headline score (the only one in files of older versions)."""
    scores = row.get("scores") or {}
    return scores[metric] if metric in scores else row["score"]


def _missing(a: Result, b: Result, rows_a: dict[str, Row], rows_b: dict[str, Row]) -> list[str]:
    found = []
    for result, here, there in ((a, rows_a, rows_b), (b, rows_b, rows_a)):
        if alone := [name for name in here if name not in there]:
            found.append(f"{len(alone)} samples only in {result.label}, left out: {named(alone)}")
    return found


def _differences_of_tasks(a: Result, b: Result, key: str, rows_a: dict[str, Row], rows_b: dict[str, Row]) -> list[str]:
    """What differs between two runs of a task beside the model."""
    found = []
    shared = [(rows_a[name], rows_b[name]) for name in rows_a if name in rows_b]
    blind = a.provenance.get("blind") != b.provenance.get("blind")  # said once, and inputs differ of course
    for what, name in _OF_ROWS.items():
        if blind and name in ("input_hash", "prompt") or name == "prompt" and a.served != b.served:
            continue
        other = [x["id"] for x, y in shared if _differs(x, y, name)]
        if other:
            which = (
                f"all {len(other)} samples" if len(other) == len(shared) else f"{len(other)} samples: {named(other)}"
            )
            found.append(f"{what} of {which}")
    about_a, about_b = a.about(key), b.about(key)
    for name, words in _OF_TASKS.items():
        before, after = about_a.get(name), about_b.get(name)
        if before != after and name in about_a and name in about_b:
            found.append(f"{words}: {shown(before)} and {shown(after)}")
    data_a, data_b = about_a.get("data") or {}, about_b.get("data") or {}
    for name in _OF_DATA:
        if name in data_a and name in data_b and data_a[name] != data_b[name]:
            found.append(f"data differ ({name}): {shown(data_a[name])} and {shown(data_b[name])}")
    return found + _differences_of_definitions(about_a, about_b)


def _differs(a: Row, b: Row, name: str) -> bool:
    """Whether two rows that both have `name` differ in it.

    Of a conversation the input is its first turn: the later ones hold what the model said and the expert it called.
    """
    if name in ("input_hash", "prompt") and a.get("turns") and b.get("turns"):
        return name == "prompt" and a["turns"][0] != b["turns"][0]
    return bool(a.get(name) and b.get(name) and a[name] != b[name])


def _differences_of_definitions(about_a: dict[str, Any], about_b: dict[str, Any]) -> list[str]:
    defined_a, defined_b = about_a.get("definitions") or {}, about_b.get("definitions") or {}
    return [
        f"the definition of {name} differs: {shown(defined_a[name])} and {shown(defined_b[name])}"
        for name in defined_a
        if name in defined_b and defined_a[name] != defined_b[name]
    ]


def _differences_of_runs(a: Result, b: Result) -> list[str]:
    found = []
    if a.digest == b.digest:
        found.append("both are the same file")
    if a.provenance.get("blind", False) != b.provenance.get("blind", False):
        with_media, without = ("B", "A") if a.provenance.get("blind") else ("A", "B")
        found.append(f"{with_media} was asked with its images and videos, {without} without (blind)")
    if a.served != b.served:
        found.append(f"the prompt of a server is not known ({'A' if a.served else 'B'})")
    for name, words in _OF_RUNS.items():
        before, after = a.provenance.get(name), b.provenance.get(name)
        if before != after and name in a.provenance and name in b.provenance:
            found.append(f"{words}: {shown(before)} and {shown(after)}")
    files = [f"{r.label} from {r.provenance['rescored'][-1]['file']}" for r in (a, b) if r.provenance.get("rescored")]
    return [*found, f"rescored: {'; '.join(files)}"] if files else found


_OF_ROWS = {
    "other inputs (words, pictures or videos)": "input_hash",
    "other prompts (template or geometry)": "prompt",
    "other gold answers": "answers",
    "other options of the metric": "scoring",
}
_OF_TASKS = {
    "task": "tasks differ",
    "metrics": "metrics differ",
    "max_new_tokens": "lengths of answers differ",
    "stop": "stop strings differ",
    "video": "frames differ",
}
_OF_DATA = ("split", "sha256", "revision", "prompt")
_OF_RUNS = {
    "judge": "judges differ",
    "decoding": "decoding differs",
    "seed": "seeds differ",
}


def named(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(map(str, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def shown(value: Any, most: int = 60) -> str:
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"
