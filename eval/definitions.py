"""Which definition a figure had: the first lines of its metric's docstring, as they were when it was computed.

Names alone do not say it: harnesses give different numbers the name of "accuracy".
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

from eval.aggregates import Mean
from eval.metrics import get_metric, metrics
from eval.tasks.base import Task


def definitions(task: Task) -> dict[str, dict[str, str]]:
    """{figure or metric: {"definition": words, "code": start of the sha256 of its source file}} of a task.

    A metric's words are the first paragraphs of its file and of its function; of a figure that is no mean, those of the
    aggregate. Metrics that are not registered (probabilities) are left out.
    """
    named: dict[str, Callable[..., Any]] = {name: get_metric(name) for name in task.metrics if name in metrics}
    named |= {name: type(figure) for name, figure in task.aggregates().items() if not isinstance(figure, Mean)}
    return {name: {"definition": _words(item), "code": _code(item)} for name, item in named.items()}


def _words(item: Callable[..., Any]) -> str:
    module = None if inspect.isclass(item) else sys.modules[item.__module__]
    first = [_first_paragraph(thing.__doc__) for thing in (module, item) if thing is not None]
    return " ".join(dict.fromkeys(words for words in first if words))


def _first_paragraph(docstring: str | None) -> str:
    return " ".join(inspect.cleandoc(docstring or "").split("\n\n")[0].split())


def _code(item: Callable[..., Any]) -> str:
    try:
        return hashlib.sha256(inspect.getsource(sys.modules[item.__module__]).encode()).hexdigest()[:12]
    except OSError:
        return ""
