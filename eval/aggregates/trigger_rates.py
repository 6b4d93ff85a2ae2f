"""How well a model decides when to call an expert: precision, recall, false-trigger rate and argument accuracy.

A row states the gold call as `wanted_expert` (a name or None; a whole trigger such as `<CXR(edema)>` where arguments
count). What is judged is the FIRST reply: the first assistant turn of `turns` where the row holds the conversation (its
`output` is then the last reply), else `output`.
"""

from __future__ import annotations

import numpy as np

from eval.aggregates.base import Aggregate, Row, divide, output_of, register_aggregate
from eval.metrics.expert_arguments import right_arguments, wanted_trigger
from eval.metrics.expert_trigger import called_expert


def first_reply(row: Row) -> str:
    """The reply that decided about a call; empty for a sample that failed before there was one."""
    return next((str(t["text"]) for t in row.get("turns") or [] if t["role"] == "assistant"), output_of(row))


class _Decisions(Aggregate):
    """Statistics (right calls, calls, wanted calls, calls where none was wanted, samples where none was wanted)."""

    def statistics(self, row: Row) -> np.ndarray | None:
        if "wanted_expert" not in row:
            return None
        wanted = wanted_trigger(row["wanted_expert"])
        called = called_expert(first_reply(row))
        right = wanted is not None and called == wanted.name
        return np.array([right, called is not None, wanted is not None, called is not None and not wanted, not wanted])


@register_aggregate("trigger_precision")
class TriggerPrecision(_Decisions):
    """Right calls / calls, a call of another expert or a malformed one being wrong. No call at all: 0.0."""

    name = "trigger_precision"
    denominator = 1

    def combine(self, sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 0], sums[..., 1], 0.0)


@register_aggregate("trigger_recall")
class TriggerRecall(_Decisions):
    """Right calls / wanted calls. Nothing wanted: 0.0."""

    name = "trigger_recall"
    denominator = 2

    def combine(self, sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 0], sums[..., 2], 0.0)


@register_aggregate("false_trigger_rate")
class FalseTriggerRate(_Decisions):
    """Calls where none was wanted / samples where none was wanted. Not defined where every sample wants one."""

    name = "false_trigger_rate"
    denominator = 4

    def combine(self, sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 3], sums[..., 4], np.nan)


@register_aggregate("false_trigger_rate_other_modality")
class FalseTriggerRateOtherModality(FalseTriggerRate):
    """`false_trigger_rate` over those samples alone whose image no expert reads, or not the one whose card is shown.

    A row says so in `other_modality`. Not defined without such samples.
    """

    name = "false_trigger_rate_other_modality"

    def statistics(self, row: Row) -> np.ndarray | None:
        return super().statistics(row) if row.get("other_modality") else None


@register_aggregate("trigger_argument_accuracy")
class ArgumentAccuracy(Aggregate):
    """Calls with exactly the wanted arguments / right calls. Not defined without a right call."""

    name = "trigger_argument_accuracy"
    denominator = 1

    def statistics(self, row: Row) -> np.ndarray | None:
        """(arguments right, 1) of a row that makes the right call."""
        wanted = wanted_trigger(row.get("wanted_expert"))
        reply = first_reply(row)
        if wanted is None or called_expert(reply) != wanted.name:
            return None
        return np.array([right_arguments(reply, wanted), 1.0])

    def combine(self, sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 0], sums[..., 1], np.nan)
