"""Drives a check: opens every source, looks at every record in parallel, then compares what was found."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.data.check.fingerprint import DISTANCE
from training.data.check.parallel import run_over
from training.data.check.problems import Problem
from training.data.check.repeats import find_repeats
from training.data.check.report import Report, SourceReport
from training.data.check.sample import Finding, SampleCheck
from training.data.check.tally import Tally
from training.data.sources import DataError, Source, open_source
from vlm.errors import RadioVLMError, SampleError

WORKERS_FROM = 100  # samples; fewer are checked in this process
STREAMED = 1000  # records of a streamed source that are checked where no limit is set


@dataclass
class Job:
    """One source to check.

    Attributes:
        spec: As `open_source` takes it; `limit` is obeyed.
        role: "train" or "eval".
        stage: Name of the stage that reads it, for reports.
        max_length: Longest allowed sample in tokens.
        options: For `processor.encode`.
    """

    spec: str | Path | dict[str, Any]
    role: str = "train"
    stage: str = ""
    max_length: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return str(self.spec["path"] if isinstance(self.spec, dict) else self.spec)

    @property
    def origin(self) -> str:
        """The same for jobs whose records of the same number are the same."""
        spec = self.spec if isinstance(self.spec, dict) else {"path": self.spec}
        return repr(sorted((key, str(value)) for key, value in spec.items() if key not in ("limit", "name")))


def check(
    jobs: Sequence[Job | str | Path | dict[str, Any]],
    processor: Any = None,
    max_length: int | None = None,
    workers: int | None = None,
    progress: Callable[..., Any] | None = None,
    level: str = "headers",
    looks: bool = False,
    distance: int = DISTANCE,
) -> Report:
    """Checks every record of the sources; an unreadable source is a problem and does not stop the others.

    Ctrl-C ends it early: the report says so and holds what was found.

    Args:
        jobs: Jobs, or specs of training sources.
        processor: Counts tokens and labels as training will; None: schema and media only.
        max_length: For jobs that set none; needs a processor.
        workers: Processes beside this one; default: one a core for large sources, none for small ones.
        progress: Makes a bar, called with (total=, desc=, unit=), e.g. tqdm.
        level: "headers": media are opened and their ends looked for; "full": they are decoded.
        looks: Compare pictures by their looks, within `distance` bits of 256.
    """
    jobs = [job if isinstance(job, Job) else Job(job) for job in jobs]
    if processor is None and (max_length is not None or any(job.max_length for job in jobs)):
        raise RadioVLMError("max_length counts tokens, so it needs a model: give --model or leave --max-length out")
    report = Report(level, compared_looks=looks)
    try:
        for job in jobs:
            _check_source(job, report, processor, job.max_length or max_length, workers, progress, looks)
    except KeyboardInterrupt:
        report.interrupted = True
    heldout = [one.role == "eval" for one in report.sources]
    report.repeats = find_repeats(report.tallies, heldout, looks, distance, [job.origin for job in jobs])
    _tell_overlap(report)
    for one, tally in zip(report.sources, report.tallies):
        one.count(tally)
    return report


def _check_source(
    job: Job, report: Report, processor: Any, max_length: int | None, workers: int | None, progress, looks: bool
) -> None:
    tally, one = Tally(), SourceReport(job.path, role=job.role, stage=job.stage, max_length=max_length)
    try:
        source = open_source(_bounded(job.spec))
    except DataError as error:
        report.problems.add(Problem(job.path, job.path, None, "unreadable_source", str(error), job.path))
        source = None
    report.sources.append(one)
    report.tallies.append(tally)
    report.opened.append(source)
    if source is None:
        return
    limit = job.spec.get("limit") if isinstance(job.spec, dict) else None
    one.format, one.size = source.format, min(len(source), limit or len(source))
    look = SampleCheck(source, processor, max_length, report.level, looks, job.options)
    if workers is None:
        workers = _cores() if one.size > WORKERS_FROM else 0
    bar = progress(total=one.size, desc=source.name, unit=" samples") if progress else None
    try:
        for index, finding in run_over(look, one.size, workers, _crashed):
            tally.add(finding)
            for sample_id, reason, message, file in finding.errors:
                report.problems.add(Problem(source.name, source.where(index), sample_id, reason, message, file))
            if bar is not None:
                bar.update(1)
    finally:
        if bar is not None:
            bar.close()
        _tell_repeated_ids(source, tally, report)


def _crashed(index: int) -> Finding:
    message = "looking at this record ends the process (a decoder crashed, or memory ran out)"
    return Finding([(None, "crash", message, None)])


def _bounded(spec: Any) -> Any:
    """A streamed source is only looked into."""
    if isinstance(spec, dict) and spec.get("streaming") and not spec.get("limit"):
        return {**spec, "limit": STREAMED}
    return spec


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tell_repeated_ids(source: Source, tally: Tally, report: Report) -> None:
    keys = np.asarray(tally.id_keys, np.uint64)
    unique, first = np.unique(keys, return_index=True)
    if len(unique) == len(keys):
        return
    firsts = first[np.searchsorted(unique, keys)]
    for row in np.flatnonzero((firsts != np.arange(len(keys))) & (keys != 0)).tolist():
        message = f"the id was used before, at {source.where(int(firsts[row]))}"
        problem = Problem(source.name, source.where(row), _id_of(source, row), "duplicate_id", message)
        report.problems.add(problem)
        tally.bad[row] = 1


def _tell_overlap(report: Report) -> None:
    for (number, row), pair in sorted(report.repeats.overlap.items()):
        source, first = report.opened[number], report.where(pair.first)
        medium = report.medium(pair.other)
        file = medium if isinstance(medium, str) and not pair.words else None
        like = f"looks like one in training ({pair.bits} of 256 bits differ)" if pair.bits else "is also in training"
        message = f"its {'conversation' if pair.words else 'picture'} {like}: {first}"
        report.problems.add(Problem(source.name, source.where(row), _id_of(source, row), "in_training", message, file))
        report.tallies[number].bad[row] = 1


def _id_of(source: Source, row: int) -> str | None:
    try:
        return source[row].id
    except SampleError as error:
        return error.sample_id
