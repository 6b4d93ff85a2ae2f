"""What can be asked about one image: topic, the expert's result that answers it, and the true answer.

The true answer wins. Where it and the result disagree that is known here, and the conversation becomes a contradiction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.data.expert_dialogues.expert_runs import Found
from vlm.experts import get_expert
from vlm.experts.topics import REPORT, Topic, topics_of

BINARY = {"0": "no", "1": "yes", "false": "no", "true": "yes"}


@dataclass(frozen=True)
class Ask:
    """A question that a result answers. `truth`: the label; `said`: the result's answer; None where there is none."""

    topic: Topic
    found: Found
    truth: str | None
    said: str | None

    @property
    def answer(self) -> str | None:
        """The right answer: the true one, or the expert's where none is given."""
        return self.said if self.truth is None else self.truth

    @property
    def disagrees(self) -> bool:
        """Whether the result and the true answer differ."""
        return self.truth is not None and not agree(self.truth, self.said, self.topic.tolerance)


def asks_of(labels: Mapping[str, str], founds: Sequence[Found]) -> list[Ask]:
    """Every topic that an image's results can be asked about and that has an answer, without reports.

    What a result says on topics without label is left out where the result is wrong on a topic with one.
    """
    asks: dict[tuple[str, str], Ask] = {}
    for found in sorted(founds, key=lambda one: not one.arguments):  # a call made for a topic before a general one
        if not found.ok:
            continue
        of_call = []
        for topic in topics_of(get_expert(found.expert), found.result, found.arguments):
            if topic.name == REPORT or topic.arguments != found.arguments:
                continue
            said = topic.answer(found.result)
            ask = Ask(topic, found, as_said(labels.get(topic.name), said), said)
            if ask.answer is not None:
                of_call.append(ask)
        wrong = any(ask.disagrees for ask in of_call)
        for ask in of_call:
            if ask.truth is not None or not wrong:
                asks.setdefault((found.expert, ask.topic.name), ask)
    return list(asks.values())


def as_said(truth: str | None, said: str | None) -> str | None:
    """A true answer in the result's words: tables write 1 for yes."""
    if truth is not None and said in ("yes", "no"):
        return BINARY.get(truth.lower(), truth)
    return truth


def agree(truth: str, said: str | None, tolerance: float = 0.0) -> bool:
    """Whether two answers are the same: as numbers within the tolerance, else as words."""
    if said is None:
        return False
    try:
        return abs(float(truth) - float(said)) <= tolerance + 1e-9
    except ValueError:
        return truth.strip().lower() == said.strip().lower()
