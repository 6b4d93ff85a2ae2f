"""What `ExpertSession.stream` yields, in the order in which it happens."""

from dataclasses import dataclass

from vlm.experts.call_log import ExpertCall
from vlm.experts.transcript import Transcript
from vlm.experts.trigger import Trigger


@dataclass(frozen=True)
class Offered:
    """First of all: the experts that are offered for the images at hand, and why others are not."""

    experts: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class TextDelta:
    """A piece of a reply, as the model writes it; whether it is an answer or a call is not yet known."""

    text: str


@dataclass(frozen=True)
class CallStarted:
    """The reply was a call (None: one that cannot be read), and is now run."""

    trigger: Trigger | None


@dataclass(frozen=True)
class CallFinished:
    """What came back, error or not; the model is asked again."""

    call: ExpertCall


@dataclass(frozen=True)
class Answer:
    """The last: the reply that is the answer, with the whole conversation."""

    text: str
    transcript: Transcript


Event = Offered | TextDelta | CallStarted | CallFinished | Answer
