"""Which definition a figure had: the first lines of its metric's docstring, as they were when it was computed.

Names alone do not say it: harnesses give different numbers the name of "accuracy".
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from eval.aggregates import Mean, calibration
from eval.metrics import get_metric, metrics
from eval.tasks.base import Task


def definitions(task: Task, weighed: bool = False) -> dict[str, dict[str, str]]:
    """{figure or metric: {"definition": words, "code": start of the sha256 of its source file}} of a task.

    A metric's words are the first paragraphs of its file and of its function; of a figure that is no mean, those of the
    aggregate. weighed: with those of calibration. Metrics that are not registered (probabilities) are left out.
    """
    named: dict[str, list[Callable[..., Any]]] = {name: _metric(name) for name in task.metrics if name in metrics}
    named |= {name: [type(figure)] for name, figure in task.aggregates().items() if not isinstance(figure, Mean)}
    named |= {figure.name: [figure] for figure in calibration.FIGURES if weighed}
    return {
        name: {"definition": " ".join(dict.fromkeys(map(_words, items))), "code": _code(items)}
        for name, items in named.items()
    }


def _metric(name: str) -> list[Callable[..., Any]]:
    """A metric; before it, for one rule of a family (`mcq_accuracy.<rule>`), the family's own."""
    family = name.partition(".")[0]
    return [get_metric(family), get_metric(name)] if family != name and family in metrics else [get_metric(name)]


def _words(item: Callable[..., Any]) -> str:
    module = None if inspect.isclass(item) else sys.modules[item.__module__]
    first = [_first_paragraph(thing.__doc__) for thing in (module, item) if thing is not None]
    return " ".join(dict.fromkeys(words for words in first if words))


def _first_paragraph(docstring: str | None) -> str:
    return " ".join(inspect.cleandoc(docstring or "").split("\n\n")[0].split())


def _code(items: Sequence[Callable[..., Any]]) -> str:
    digest = hashlib.sha256()
    for item in items:
        try:
            digest.update(inspect.getsource(sys.modules[item.__module__]).encode())
        except OSError:  # no source file, as in a frozen program
            return ""
    return digest.hexdigest()[:12]
