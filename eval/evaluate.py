"""Runs tasks over data with one model and gathers everything a results file holds.

`run.py` is the door from outside; this is the same thing for callers that already hold a model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.data import Dataset, read_dataset
from eval.generation import Generator
from eval.results import FORMAT, describe_dataset, describe_model, provenance
from eval.tasks import Task, get_task, tasks
from eval.tasks.base import Options
from eval.tasks.dataset import DatasetTask
from eval.tasks.likelihood import LikelihoodTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A task and the data it is asked on."""

    task: Task
    dataset: Dataset


def job_for_data(path: str | Path, metric: str | None = None, media_root: str | Path | None = None) -> Job:
    """The job for a dataset folder or file: the task that its `dataset.json` names, or any-dataset with `metric`.

    Raises FileNotFoundError, ValueError (unreadable file), UnknownNameError (metric).
    """
    dataset = read_dataset(path, media_root)
    if not dataset.samples:
        raise ValueError(f"{path}: no records")
    by_key = {get_task(name).key: get_task(name) for name in tasks if get_task(name).key}
    known = by_key.get(str(dataset.info.get("task")))
    if known is not None and metric is None:
        return Job(known(dataset), dataset)
    return Job(DatasetTask(dataset, metric), dataset)


def job_for_likelihood(path: str | Path, media_root: str | Path | None = None) -> Job:
    """The job that weighs the answers of a dataset folder or file. Raises as `job_for_data`."""
    dataset = read_dataset(path, media_root)
    if not dataset.samples:
        raise ValueError(f"{path}: no records")
    return Job(LikelihoodTask(dataset), dataset)


def job_for_task(name: str, data_root: str | Path) -> Job:
    """The job for a registered task, its data in `data_root/<key>-test`.

    Raises UnknownNameError; FileNotFoundError with the command that makes the data.
    """
    task = get_task(name)
    folder = Path(data_root) / f"{task.key}-test"
    if not (folder / "records.jsonl").is_file():
        raise FileNotFoundError(
            f"task {name}: no data in {folder}. Make it with\n"
            f"  radio-vlm make-data --task {task.key} --split test --seed 1 --n 200 --out {folder}\n"
            "or name the folder that holds <task>-test folders with --data-root, or a dataset with --data"
        )
    dataset = read_dataset(folder)
    return Job(task(dataset), dataset)


def evaluate(
    model: Any,
    processor: Any,
    jobs: Sequence[Job],
    options: Options,
    *,
    batch_size: int = 64,
    model_name: str = "",
    command: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, Any]:
    """The contents of a results file. Failed samples are in it, named, with a score of zero."""
    generator = Generator(model, processor, batch_size=batch_size, progress=progress)
    figures: dict[str, Any] = {}
    samples: list[dict[str, Any]] = []
    runs: dict[str, Any] = {}
    for job in jobs:
        started, before = time.perf_counter(), dict(generator.spent)
        key = job.task.key
        number = 1
        while key in figures:  # two datasets of one task: keep both
            number += 1
            key = f"{job.task.key}-{number}"
        rows = job.task.run(job.dataset.samples, generator, options)
        for row in rows:
            row["task"] = key
        figures[key] = job.task.figures(rows)
        samples += rows
        spent = {name: round(value - before[name], 3) for name, value in generator.spent.items()}
        runs[key] = {
            "task": job.task.name,
            "metrics": list(job.task.metrics),
            "max_new_tokens": job.task.max_new_tokens,
            "data": describe_dataset(job.dataset, asked=figures[key]["n"]),
            "seconds": round(time.perf_counter() - started, 2),
            **spent,
        }
        _report_failures(key, rows)
    about = provenance(list(command), options.seed, batch_size)
    return {
        "format": FORMAT,
        "model": model_name,
        "provenance": {**about, "model": describe_model(model, processor), "tasks": runs},
        "tasks": figures,
        "samples": samples,
    }


def _report_failures(key: str, rows: Sequence[dict[str, Any]]) -> None:
    asked = [row for row in rows if row["control"] is None]
    failed = [row for row in asked if row["error"]]
    if failed:
        logger.warning("%s: %d of %d samples failed and were scored as wrong:", key, len(failed), len(asked))
    for row in failed[:20]:
        logger.warning("  %s: %s", row["id"], row["error"])
    if len(failed) > 20:
        logger.warning("  … and %d more, all in the results file", len(failed) - 20)
