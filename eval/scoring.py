"""From an answer to its scores: the same few lines for a fresh answer and for one out of a results file.

What a metric needs to know beside answer and references (the options of a multiple-choice question, the format of an
answer) is in the row's `scoring`; each metric takes of it what its signature names.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from eval.metrics import get_metric

END_OF_THINKING = "</think>"


def final_answer(output: str) -> str:
    """What follows the model's thinking; all of it where there is none. An unfinished thought is no answer."""
    if END_OF_THINKING in output:
        return output.rsplit(END_OF_THINKING, 1)[1].strip()
    return "" if output.lstrip().startswith("<think>") else output


def score(metric: str, output: str, answers: Sequence[str], scoring: Mapping[str, Any]) -> float:
    """The score of one answer under `metric`. Raises UnknownNameError."""
    options = {name: value for name, value in scoring.items() if name in keywords(metric)}
    return get_metric(metric)(final_answer(output), answers, **options)


def scores_of(
    metrics: Sequence[str],
    output: str,
    answers: Sequence[str],
    scoring: Mapping[str, Any],
    error: str | None = None,
    unscored: str | None = None,
) -> dict[str, float | None]:
    """The scores of one answer: zero under every metric for what failed, None for what nothing here can judge.

    The latter also where it failed: it is in no figure, or a figure would be over the failures alone.
    """
    if error or unscored:
        return dict.fromkeys(metrics, None if unscored else 0.0)
    return {name: score(name, output, answers, scoring) for name in metrics}


def prepare(metrics: Sequence[str], asked: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Lets metrics that are networks see all (output, references) at once, before they score one by one.

    Raises MissingPackageError, a ValueError, where a metric needs a package that is not installed.
    """
    for name in metrics:
        if hook := getattr(get_metric(name), "prepare", None):
            hook([(final_answer(output), references) for output, references in asked])


def check_metric(name: str) -> None:
    """Raises UnknownNameError; MissingPackageError where the metric needs a package that is not installed."""
    check = getattr(get_metric(name), "check", None)
    if check is not None:
        check()


@cache
def keywords(metric: str) -> frozenset[str]:
    """What a metric can be told beside answer and references. Raises UnknownNameError."""
    parameters = list(inspect.signature(get_metric(metric)).parameters.values())[2:]
    return frozenset(p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD)
