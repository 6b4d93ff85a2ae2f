"""A finished conversation with experts."""

from dataclasses import dataclass, field

from vlm.experts.call_log import ExpertCall
from vlm.experts.conversation import Messages


@dataclass
class Transcript:
    """All messages (cards and results included), the calls, the last reply, and what was offered.

    `notes` say in words why an image got no expert, e.g. `image 1 is a secondary capture (a screenshot)`.
    """

    messages: Messages
    answer: str = ""
    calls: list[ExpertCall] = field(default_factory=list)
    offered: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def triggered(self) -> bool:
        """Whether the model wrote anything that is or tries to be a trigger."""
        return bool(self.calls)
