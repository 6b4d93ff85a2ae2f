"""Expert models that a VLM may call by a trigger such as `<LESIONS()>`, and the protocol they share (see README.md).

One file an expert: every module in this folder is imported here, and its `@register_expert` does the rest.
Nothing of the model itself (configuration, modeling, processing) imports this package.
"""

import importlib
import pkgutil

from vlm.experts.call_log import ExpertCall
from vlm.experts.events import Answer, CallFinished, CallStarted, Event, Offered, TextDelta
from vlm.experts.protocol import (
    Expert,
    ExpertCard,
    ExpertError,
    ExpertResult,
    Trigger,
    TriggerError,
    card_block,
    expert_names,
    get_expert,
    parse_trigger,
    register_expert,
)
from vlm.experts.session import ExpertSession
from vlm.experts.transcript import Transcript

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "Answer",
    "CallFinished",
    "CallStarted",
    "Event",
    "Expert",
    "ExpertCall",
    "ExpertCard",
    "ExpertError",
    "ExpertResult",
    "ExpertSession",
    "Offered",
    "TextDelta",
    "Transcript",
    "Trigger",
    "TriggerError",
    "card_block",
    "expert_names",
    "get_expert",
    "parse_trigger",
    "register_expert",
]
