"""GREEN (Ostmeier et al., Findings of EMNLP 2024): a language model of 7B weights counts a report's errors.

Score of a report: matched findings / (matched findings + clinically significant errors), as the model lists them.
Through RadEval, which the user installs; see `eval/metrics/_radeval.py` for what was and was not run here. References
are shown to the model as they were written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.metrics._radeval import Remembered, radeval_class
from eval.metrics.radgraph_f1 import pairs_of
from eval.metrics.registry import register_metric

MODEL = "StanfordAIMI/GREEN-radllama2-7b"


def open_scorer() -> Any:
    """RadEval's GREEN; on the GPU where there is one. Raises MissingPackageError."""
    return radeval_class("green", "green_score", "GREEN")(MODEL, output_dir=".")


def ask(scorer: Any, pairs: list[tuple[str, str]]) -> list[float]:
    """(prediction, reference) pairs -> scores; 0.0 where the model's list could not be read."""
    _, _, scores, _ = scorer([gold for _, gold in pairs], [text for text, _ in pairs])
    return [float(score or 0.0) for score in scores]


remembered = Remembered(open_scorer, ask)


@register_metric("green")
def green(prediction: str, references: Sequence[str]) -> float:
    """The GREEN score, in [0, 1]; the best reference counts. An empty report: 0.0, without asking the model."""
    pairs = pairs_of([(prediction, references)])
    remembered.prepare(pairs)
    return max((remembered[pair] for pair in pairs), default=0.0)


green.check = lambda: radeval_class("green", "green_score", "GREEN")
green.prepare = lambda asked: remembered.prepare(pairs_of(asked))
