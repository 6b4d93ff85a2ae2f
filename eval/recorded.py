"""The task of a results file, without its data: enough to compute its figures again from stored rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from eval.aggregates import Aggregate, Mean
from eval.controls import UNCONTROLLED
from eval.data import Dataset
from eval.registry import UnknownNameError
from eval.tasks import get_task
from eval.tasks.base import Row, Task
from eval.tasks.dataset import OWN_METRIC, DatasetTask, figure_of


def recorded_task(key: str, about: Mapping[str, Any], rows: Sequence[Row]) -> Task:
    """The task under the key, metrics and controls that a results file gives it.

    Args:
        about: `provenance.tasks[key]`.
        rows: the task's rows.

    A task that this version does not know (a plug-in's) is taken as a plain one: means of its metrics.
    """
    try:
        kind = get_task(str(about.get("task")))
    except UnknownNameError:
        kind = Task
    try:
        task = kind(Dataset(Path(key), Path(key), {"name": key}, []))
    except ValueError:  # what it needs for asking, an expert say, is not here; its figures do not need it
        task = object.__new__(kind)
    first = next((row.get("scores") for row in rows), None) or {}
    if isinstance(task, DatasetTask):
        task.several = OWN_METRIC in (about.get("figures") or [])
    task.key = key
    task.metrics = tuple(about.get("metrics") or first or task.metrics)
    seen = dict.fromkeys(row["control"] for row in rows if row["control"])
    seen |= dict.fromkeys(control for row in rows for control in row.get(UNCONTROLLED, ()))
    task.controls = tuple(dict.fromkeys([*(c for c in task.controls if c in seen), *seen]))
    return task


def with_metrics(task: Task, metrics: Sequence[str]) -> Task:
    """The task scored by `metrics`, headline first; what else it reports stays.

    Where `metrics[0]` is the task's own first metric its figures keep their order. A metric that is new to the task is
    summed up as the task's headline is, if that is a function of one metric (a mean over kinds, say), else as in
    datasets of one's own.
    """
    own = task.aggregates()
    changed = copy(task)
    changed.metrics = tuple(dict.fromkeys([*metrics, *task.metrics]))
    asked: dict[str, Aggregate] = {}
    for metric in metrics:
        asked |= {name: figure for name, figure in own.items() if getattr(figure, "metric", None) == metric}
        if metric not in task.metrics:
            figure = _like(next(iter(own.values())), metric)
            asked[figure.name] = figure
    figures = {**own, **asked} if metrics[0] == task.metrics[0] else {**asked, **own}
    changed.aggregates = lambda: figures  # its own would know nothing of the new metrics
    return changed


def _like(aggregate: Aggregate, metric: str) -> Aggregate:
    before = getattr(aggregate, "metric", None)
    if before is None or isinstance(aggregate, Mean):
        return figure_of(metric)
    figure = copy(aggregate)
    figure.metric, figure.name = metric, aggregate.name.replace(before, metric)
    return figure
