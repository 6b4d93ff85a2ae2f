"""Did a call carry the right arguments? Judged only by the grammar that experts are called by (`vlm.experts`).

The order of arguments does not count (they are options of one card, such as `<CXR(edema, effusion)>`), nor does
anything around the trigger; a malformed call, another expert, a missing or an additional argument is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eval.metrics.registry import as_texts, register_metric

if TYPE_CHECKING:
    from vlm.experts.protocol import Trigger


def wanted_trigger(text: object) -> Trigger | None:
    """A gold call: a trigger as it would be written, or a bare name, which wants no argument. None or "": no call.

    Raises TriggerError for a gold call that no reply could ever meet.
    """
    from vlm.experts.protocol import Trigger, parse_trigger

    if text is None or not str(text).strip():
        return None
    return parse_trigger(str(text)) or Trigger(str(text).strip())


def right_arguments(reply: str, wanted: Trigger) -> bool:
    """Whether `reply` calls the wanted expert with exactly the wanted arguments, in any order."""
    from vlm.experts.protocol import TriggerError, parse_trigger

    try:
        called = parse_trigger(reply)
    except TriggerError:
        return False
    return called is not None and (called.name, sorted(called.arguments)) == (wanted.name, sorted(wanted.arguments))


@register_metric("expert_arguments")
def expert_arguments(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the first reply makes one of the wanted calls, arguments included. Nothing wanted: 0.0.

    Samples that want no call have no arguments to judge and belong to `expert_trigger`; the rate over RIGHT calls
    alone is the aggregate `trigger_argument_accuracy`.
    """
    wanted = [trigger for text in as_texts(references) if (trigger := wanted_trigger(text)) is not None]
    return float(any(right_arguments(str(prediction), trigger) for trigger in wanted))
