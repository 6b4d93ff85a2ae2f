"""Expert models that a VLM may call by a trigger such as `<LESIONS()>`, and the protocol they share.

One file an expert: every module in this folder is imported here, and its `@register_expert` does the rest.
Nothing of the model itself (configuration, modeling, processing) imports this package.
"""

import importlib
import pkgutil

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
from vlm.experts.session import ExpertCall, ExpertSession, Transcript

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "Expert",
    "ExpertCall",
    "ExpertCard",
    "ExpertError",
    "ExpertResult",
    "ExpertSession",
    "Transcript",
    "Trigger",
    "TriggerError",
    "card_block",
    "expert_names",
    "get_expert",
    "parse_trigger",
    "register_expert",
]
