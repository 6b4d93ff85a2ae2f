"""Which tasks are about medical images, and the notice that a page about one begins with.

Decided by what the results file says: its task calls itself medical, its data does, its rows tell of experts, or their
images are DICOM or NIfTI files.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from eval.results_file import Result, Row

SCANS = (".dcm", ".dicom", ".nii", ".nii.gz")


def medical_tasks(results: Sequence[Result]) -> list[str]:
    """The keys of the medical tasks, in the order of the files."""
    return list(dict.fromkeys(key for result in results for key in result.tasks if is_medical(result, key)))


def is_medical(result: Result, task: str) -> bool:
    about = result.about(task)
    if about.get("medical") or (about.get("data") or {}).get("task") == "medical":
        return True
    return any("calls" in row or "wanted_expert" in row or _scans(row) for row in result.rows(task))


def _scans(row: Row) -> bool:
    return any(str(path).lower().endswith(SCANS) for path in row.get("media") or [])


def notice(results: Sequence[Result]) -> str:
    """The notice in words; empty where there is no medical task."""
    from vlm.notice import NOTICE

    return NOTICE if medical_tasks(results) else ""


def banner(results: Sequence[Result]) -> str:
    """The same as HTML."""
    words = notice(results)
    return f'<p class="notice">{escape(words)}</p>' if words else ""
