"""Runs tasks over data with one backend and gathers everything a results file holds.

`run.py` is the door from outside; this is the same thing for callers that already hold a model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

from eval.backends.base import Backend
from eval.data import media_items
from eval.definitions import definitions
from eval.generation import Generator
from eval.jobs import Job
from eval.journal import Journal
from eval.judge import Judge
from eval.ranks import Ranks
from eval.results import FORMAT, describe_dataset, provenance
from eval.tasks.base import Options

logger = logging.getLogger(__name__)


def evaluate(
    backend: Backend,
    jobs: Sequence[Job],
    options: Options,
    *,
    batch_size: int = 64,
    model_name: str = "",
    command: Sequence[str] = (),
    progress: bool = True,
    out: str | Path | None = None,
    resume: bool = False,
    ranks: Ranks | None = None,
    workers: int | None = None,
    sort: bool = True,
    judge: Backend | None = None,
    judge_name: str = "",
) -> dict[str, Any]:
    """The contents of a results file. Failed samples are in it, named, with a score of zero.

    Args:
        out: where the results will be written; replies are kept beside it until then (`eval.journal`), so that
            `resume` can go on with them. None: nothing is kept.
        ranks: the processes that share the questions; each gets the whole results.
        judge: a model that scores the open answers that no rule can (`eval.judge`).

    Raises ResumeError where `resume` meets the replies of another run, RefusedError where the backend cannot be asked
    about such media, ValueError where a task lacks what it needs.
    """
    ranks = ranks or Ranks()
    for job in jobs:
        job.task.check(options)
    backend.check(media_kinds(jobs, options))
    about_model = backend.describe()
    jobs = with_unique_keys(jobs)
    header = run_header(model_name, about_model, jobs, options)
    journal = None
    if out is not None:
        journal = Journal(out, header, resume, ranks.rank)
        ranks.wait()  # until all have read what is there: the first is about to change it
        if ranks.rank == 0:
            journal.start()
        ranks.wait()
        if journal.known:
            logger.info("resumed: %d answers are already there", len(journal.known))
    generator = Generator(backend, batch_size, progress, journal=journal, ranks=ranks, workers=workers, sort=sort)
    judging = None
    if judge is not None:
        judging = Judge(Generator(judge, batch_size, progress, journal=journal, ranks=ranks), judge_name)
    figures: dict[str, Any] = {}
    samples: list[dict[str, Any]] = []
    runs: dict[str, Any] = {}
    for job in jobs:
        started, before = time.perf_counter(), generator.total()
        rows = job.task.run(job.dataset.samples, generator, options)
        spent = generator.total().since(before)
        if judging:
            judging.score(rows)
        figures[job.task.key] = job.task.figures(rows)
        samples += rows
        runs[job.task.key] = {
            **job.task.describe(options),
            "definitions": definitions(job.task, "calibration" in figures[job.task.key]),
            "data": describe_dataset(job.dataset, asked=figures[job.task.key]["n"]),
            "seconds": round(time.perf_counter() - started, 2),
            **spent,
        }
        if ranks.rank == 0:
            _report_failures(job.task.key, rows)
    if journal:
        journal.close()
    about = provenance(list(command), options.seed, batch_size, ranks.size)
    if judging:
        about["judge"] = judging.describe()
    if generator.batch_size != batch_size:
        about["batch_size_at_the_end"] = generator.batch_size
    return {
        "format": FORMAT,
        "model": model_name,
        "run": header,
        "provenance": {**about, "blind": options.blind, "model": about_model, "tasks": runs},
        "tasks": figures,
        "samples": samples,
    }


def media_kinds(jobs: Sequence[Job], options: Options) -> set[str]:
    """What there is to look at in the questions: image, video, document. Files stay closed."""
    asked = [sample for job in jobs for sample in job.dataset.samples[: options.limit]]
    return set() if options.blind else {item["type"] for sample in asked for item in media_items(sample.prompt)}


def with_unique_keys(jobs: Sequence[Job]) -> list[Job]:
    """Two datasets of one task: both are kept, the second as `name-2`."""
    seen: dict[str, int] = {}
    unique = []
    for job in jobs:
        task = copy(job.task)
        seen[task.key] = seen.get(task.key, 0) + 1
        if seen[task.key] > 1:
            task.key = f"{task.key}-{seen[task.key]}"
        unique.append(Job(task, job.dataset))
    return unique


def run_header(model_name: str, about_model: dict[str, Any], jobs: Sequence[Job], options: Options) -> dict[str, Any]:
    """What must be equal for an answer of one run to be an answer of another."""
    return {
        "model": model_name,
        "fingerprint": about_model.get("fingerprint"),
        "dtype": about_model.get("dtype"),
        "chat_template": about_model.get("chat_template"),
        "geometry": about_model.get("geometry"),
        "video": about_model.get("video"),
        "seed": options.seed,
        "limit": options.limit,
        "blind": options.blind,
        "tasks": {job.task.key: {"data": job.dataset.digest, **job.task.describe(options)} for job in jobs},
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
    if len(failed) == len(asked) and any("does not exist" in row["error"] for row in failed):
        logger.warning("  are the media elsewhere? --media-root names the folder that paths are relative to")
    unscored = [row for row in asked if row.get("unscored")]
    if unscored:
        logger.warning(
            "%s: %d of %d answers were not scored: %s", key, len(unscored), len(asked), unscored[0]["unscored"]
        )
