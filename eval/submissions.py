"""Files for benchmarks that are scored on a server, because their answers are not public: what to upload there.

Written beside the results file by `eval/run.py`; each task knows its server's format (`Benchmark.submission`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.jobs import Job
from eval.tasks.benchmark import Benchmark


def write_submissions(jobs: Sequence[Job], results: dict[str, Any], out: Path) -> list[Path]:
    """Writes `<results file's name>-<task's file>` for each task that has one; returns the files."""
    written = []
    for job in jobs:
        if not isinstance(job.task, Benchmark):
            continue
        rows = [row for row in results["samples"] if row["task"] == job.task.key and row["control"] is None]
        made = job.task.submission(rows)
        if made is not None:
            name, content = made
            path = out.with_name(f"{out.stem}-{name}")
            path.write_text(content, encoding="utf-8")
            written.append(path)
    return written
