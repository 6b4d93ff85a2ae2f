"""What is to be asked: a task and its data, from a task's name, from a dataset, or from a file of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eval.data import Dataset, read_dataset
from eval.sources import DataPlaces
from eval.tasks import Task, get_task, tasks
from eval.tasks.benchmark import Benchmark
from eval.tasks.dataset import DatasetTask
from eval.tasks.likelihood import LikelihoodTask


@dataclass(frozen=True)
class Job:
    """A task and the data it is asked on."""

    task: Task
    dataset: Dataset


def job_for_data(path: str | Path, metric: str | None = None, media_root: str | Path | None = None) -> Job:
    """The job for a dataset folder or file: the task that its `dataset.json` names, or any-dataset with `metric`.

    Raises FileNotFoundError, ValueError (unreadable file), UnknownNameError (metric).
    """
    dataset = _with_records(path, media_root)
    by_key = {get_task(name).key: get_task(name) for name in tasks if get_task(name).key}
    known = by_key.get(str(dataset.info.get("task")))
    if known is not None and metric is None:
        return Job(known(dataset), dataset)
    return Job(DatasetTask(dataset, metric), dataset)


def job_for_likelihood(path: str | Path, media_root: str | Path | None = None) -> Job:
    """The job that weighs the answers of a dataset folder or file. Raises as `job_for_data`."""
    dataset = _with_records(path, media_root)
    return Job(LikelihoodTask(dataset), dataset)


def job_for_task(name: str, places: DataPlaces, limit: int | None = None) -> Job:
    """The job for a registered task. A benchmark's data comes from `places`; a synthetic one's is made beforehand.

    Raises UnknownNameError; FileNotFoundError with the command that brings the data.
    """
    task = get_task(name)
    if not task.key and not issubclass(task, Benchmark):
        option = "--data" if name == "dataset" else f"--{name}"
        raise ValueError(f"the task {name!r} is for data of your own: name it with {option}")
    if issubclass(task, Benchmark):
        dataset = task.load(places, limit)
        return Job(task(dataset), dataset)
    folder = Path(places.root) / f"{task.key}-test"
    if not (folder / "records.jsonl").is_file():
        raise FileNotFoundError(
            f"task {name}: no data in {folder}. Make it with\n"
            f"  radio-vlm make-data --task {task.key} --split test --seed 1 --n 200 --out {folder}\n"
            "or name the folder that holds <task>-test folders with --data-root, or a dataset with --data"
        )
    dataset = read_dataset(folder)
    return Job(task(dataset), dataset)


def _with_records(path: str | Path, media_root: str | Path | None) -> Dataset:
    dataset = read_dataset(path, media_root)
    if not dataset.samples:
        raise ValueError(f"{path}: no records")
    return dataset
