"""Pictures of a question, or why they cannot be shown: a question whose picture is missing is still a question.

Its gold answer, kind and group are known, so it is wrong in just those figures that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from eval.data import Sample
from eval.tasks.benchmark import image


def pictures_or_problem(load: Callable[[], Iterable[str]]) -> tuple[list[dict[str, Any]], str | None]:
    """(items of the turn, None), or ([], what is wrong) where `load`, which returns the paths, raises."""
    try:
        return [image(path) for path in load()], None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [], f"missing column {error}" if isinstance(error, KeyError) else str(error)


def with_problem(sample: Sample, problem: str | None) -> Sample:
    """The sample, which cannot be asked where there is a problem."""
    return replace(sample, problem=problem) if problem else sample
