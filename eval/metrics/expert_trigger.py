"""Did the model call the right expert, and only then? Over many: aggregates `trigger_precision`, `trigger_recall`.

Anything that looks like a trigger counts as a call - a malformed one is a wrong call, not a missing one - and the
grammar is the one the experts themselves are called by (`vlm.experts`), never a search for a name in the text.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.registry import as_texts, register_metric

INVALID = "INVALID"


def called_expert(reply: str) -> str | None:
    """Name in the reply's trigger, INVALID for a malformed call, None for an ordinary answer."""
    from vlm.experts.protocol import TriggerError, parse_trigger

    try:
        trigger = parse_trigger(reply)
    except TriggerError:
        return INVALID
    return trigger.name if trigger else None


@register_metric("expert_trigger")
def expert_trigger(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the first reply calls one of the experts in `references`, or calls none where there are none."""
    wanted = as_texts(references)
    called = called_expert(prediction)
    return float(called in wanted if wanted else called is None)
