"""Multiple-choice accuracy under each public extraction rule, as metrics of their own: `mcq_accuracy.<rule>`.

A task whose headline is our rule reports the rule of the harness it is compared with beside it, and a stored result can
be scored again under any of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.mcq import extractors
from eval.metrics.mcq_accuracy import mcq_accuracy
from eval.metrics.registry import Metric, register_metric


def _under(rule: str) -> Metric:
    def accuracy(
        prediction: str,
        references: Sequence[str],
        options: Sequence[str] = (),
        choices: Sequence[str] | None = None,
    ) -> float:
        return mcq_accuracy(prediction, references, options, choices, extractor=rule)

    accuracy.__doc__ = f"`mcq_accuracy` with the letter that the rule {rule!r} reads; see `mcq_option_extraction`."
    return accuracy


for _rule in extractors:
    register_metric(f"mcq_accuracy.{_rule}")(_under(_rule))
