"""A conversation with experts that still waits for its answer: its images, who may read which, what was said so far."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm.experts.conversation import ImageRef, Messages, offer_cards, text_of
from vlm.experts.protocol import ExpertCard
from vlm.experts.transcript import Transcript
from vlm.experts.trigger import ExpertError, Trigger

IMAGE_ARGUMENT = re.compile(r"image (\d{1,4})")
CHOICE = "Images: an expert reads the last one that fits; argument image N chooses."


@dataclass
class OpenConversation:
    """Attributes:
    transcript: what becomes of it.
    files: its images that lie in files.
    fitting: cards of the experts for each of these images; empty when experts are withheld.
    question: text of the turn to be answered.
    override: file that experts read instead.
    """

    transcript: Transcript
    files: list[ImageRef]
    fitting: Mapping[int, Sequence[ExpertCard]]
    question: str
    override: str | Path | None = None

    @classmethod
    def of(
        cls,
        messages: Messages,
        files: list[ImageRef],
        fitting: Mapping[int, Sequence[ExpertCard]],
        order: Sequence[str],
        override: str | Path | None,
        besides: Sequence[ExpertCard] = (),
    ) -> "OpenConversation":
        """With the cards put into its messages, in the given order of names, each once.

        besides: cards that are shown although they may fit no image; only those that fit are `offered`, so a call of
            another is refused.
        """
        cards = {card.name: card for found in fitting.values() for card in found}
        shown = {card.name: card for card in besides} | cards
        offered = [name for name in order if name in cards]
        choice = any(sum(card.name == name for found in fitting.values() for card in found) > 1 for name in offered)
        with_cards = offer_cards(messages, [shown[name] for name in order if name in shown], CHOICE if choice else "")
        return cls(Transcript(with_cards, offered=offered), files, fitting, text_of(messages[-1]), override)

    @property
    def last_file(self) -> Path | None:
        """The last image in a file."""
        return self.files[-1].path if self.files else None

    def candidates(self, name: str) -> dict[int, Path]:
        """The images that an expert may read, by number."""
        return {
            ref.number: ref.path
            for ref in self.files
            if any(card.name == name for card in self.fitting.get(ref.number, ()))
        }


def chosen_image(trigger: Trigger, card: ExpertCard, candidates: Mapping[int, Path]) -> tuple[Path, tuple[str, ...]]:
    """The image of a call, and its arguments without the one that chose it; the last that fits unless one is chosen.

    Raises `ExpertError` for an image that is not among the candidates.
    """
    chosen, rest = [], []
    for argument in trigger.arguments:
        match = IMAGE_ARGUMENT.fullmatch(argument) if argument not in card.arguments else None
        chosen.append(int(match[1])) if match else rest.append(argument)
    if len(chosen) > 1:
        raise ExpertError("one image at a time")
    if not candidates:
        raise ExpertError("there is no image file")
    number = chosen[0] if chosen else max(candidates)
    if number not in candidates:
        known = ", ".join(map(str, candidates))
        raise ExpertError(f"{card.name} cannot read image {number}; it reads image {known}")
    return candidates[number], tuple(rest)
