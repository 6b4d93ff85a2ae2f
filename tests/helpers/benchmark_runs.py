"""Runs a benchmark's mini copy the way `eval/run.py` runs the real one: same job, same evaluation, scripted answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.data import Sample
from eval.evaluate import evaluate
from eval.jobs import Job, job_for_task
from eval.sources import DataPlaces
from eval.tasks.base import Options
from tests.helpers.mini_benchmarks import write_mini
from tests.helpers.scripted_backend import ScriptedBackend

NONSENSE = "~~~~"


def mini_job(name: str, root: Path, limit: int | None = None) -> Job:
    """The job on a fresh mini copy below `root`."""
    return job_for_task(name, DataPlaces(write_mini(name, root), root / "cache"), limit)


def run_job(job: Job, answer: Callable[[str], str] | Mapping[str, str], **options: Any) -> dict[str, Any]:
    """A results file's contents; `answer` by sample id, a mapping answering nonsense to the rest."""
    script = answer if callable(answer) else lambda sample_id: answer.get(sample_id, NONSENSE)
    return evaluate(ScriptedBackend(script), [job], Options(**options), batch_size=8, progress=False)


def figures_of(job: Job, answer: Callable[[str], str] | Mapping[str, str], **options: Any) -> dict[str, Any]:
    return run_job(job, answer, **options)["tasks"][job.task.key]


def gold(job: Job) -> dict[str, str]:
    """Sample id → its first gold answer: what a model that knows everything says."""
    return {sample.id: sample.answers[0] for sample in job.dataset.samples if sample.answers}


def shown(sample: Sample) -> list[str]:
    """The turn's items in order: the text of a text, `<kind>` for a medium."""
    (turn,) = sample.messages
    return [item["text"] if item["type"] == "text" else f"<{item['type']}>" for item in turn["content"]]


def by_id(job: Job) -> dict[str, Sample]:
    return {sample.id: sample for sample in job.dataset.samples}


def without_answers(job: Job) -> Job:
    """The same job with samples that have no gold answer."""
    bare = [replace(sample, meta={**sample.meta, "answers": []}) for sample in job.dataset.samples]
    return Job(job.task, replace(job.dataset, samples=bare))
