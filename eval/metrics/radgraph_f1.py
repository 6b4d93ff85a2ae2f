"""RadGraph F1 (Jain et al. 2021; Delbrouck et al. 2022): do two reports name the same findings, places and relations?

A network (RadGraph-XL) reads entities and relations out of both reports; the score of a report is the F1 of the two
sets. Through RadEval, which the user installs; see `eval/metrics/_radeval.py` for what was and was not run here.
References are scored as they were written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.metrics._radeval import Remembered, radeval_class
from eval.metrics.registry import as_texts, check_rule, register_metric

LEVELS = ("simple", "partial", "complete")


def open_scorer() -> Any:
    """RadEval's F1RadGraph with all levels at once. Raises MissingPackageError."""
    return radeval_class("radgraph_f1", "radgraph", "F1RadGraph")(reward_level="all", model_type="radgraph-xl")


def ask(scorer: Any, pairs: list[tuple[str, str]]) -> list[tuple[float, ...]]:
    """(prediction, reference) pairs -> (simple, partial, complete) of each."""
    _, by_level, *_ = scorer(refs=[gold for _, gold in pairs], hyps=[text for text, _ in pairs])
    return [tuple(map(float, levels)) for levels in zip(*by_level, strict=True)]


remembered = Remembered(open_scorer, ask)


@register_metric("radgraph_f1")
def radgraph_f1(prediction: str, references: Sequence[str], level: str = "partial") -> float:
    """F1 of entities at `level`: `simple` (tokens and label), `partial` (and whether in a relation; the default), or
    `complete` (and which). The best reference counts. An empty report: 0.0."""
    check_rule("radgraph_f1", level, LEVELS)
    pairs = pairs_of([(prediction, references)])
    remembered.prepare(pairs)
    return max((remembered[pair][LEVELS.index(level)] for pair in pairs), default=0.0)


def pairs_of(asked: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, str]]:
    """(prediction, reference) of every reference; none of an empty text."""
    pairs = [(str(prediction), gold) for prediction, references in asked for gold in as_texts(references)]
    return [pair for pair in pairs if all(text.strip() for text in pair)]


radgraph_f1.check = lambda: radeval_class("radgraph_f1", "radgraph", "F1RadGraph")
radgraph_f1.prepare = lambda asked: remembered.prepare(pairs_of(asked))
