"""What an expert declares (its card) and returns, and the registry in which it is found.

The idea is VILA-M3's (arXiv 2411.12915): cards stand in the first user turn, the model answers with `<NAME(arg, ...)>`,
the expert's result comes back as text in the next user turn. Two things are stricter here: triggers are parsed by a
grammar (`vlm.experts.trigger`), never by looking for a name inside the text, and experts are found in a registry, never
in a caller's list.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vlm.experts.trigger import ARGUMENT, NAME, ExpertError, Trigger, TriggerError, parse_trigger

if TYPE_CHECKING:
    from vlm.experts.topics import Topic

MODALITY = r"[A-Z]{2,16}"


@dataclass(frozen=True)
class ExpertCard:
    """The declaration of an expert: all that the model, the session and the reader of a report need to know of it."""

    name: str
    """Upper-case name, as it stands in the trigger."""
    modality: str
    """DICOM modality that it reads (`CT`, `MR`, ...), or several (`DX/CR`); an image of another or none is refused."""
    body_part: str
    """Region it was made for, or `any`."""
    returns: str
    """What its answer says, in a few words: this is what the model chooses by."""
    arguments: tuple[str, ...] = ()
    """Valid arguments; empty means that the expert takes none."""
    weights: str = "none"
    """Where its weights come from (`none` for a rule-based expert)."""

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME, self.name):
            raise ValueError(f"expert name {self.name!r} must match {NAME}")
        for modality in self.modalities:
            if not re.fullmatch(MODALITY, modality):
                raise ValueError(f"modality {self.modality!r} of expert {self.name} must be like CT or DX/CR")
        for argument in self.arguments:
            if not re.fullmatch(ARGUMENT, argument):
                raise ValueError(f"argument {argument!r} of expert {self.name} must match {ARGUMENT}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Each of the modalities that the expert reads."""
        return tuple(self.modality.split("/"))

    def line(self) -> str:
        """One line for the prompt, e.g. `<LESIONS()> CT: lesions`."""
        return f"<{self.name}({'|'.join(self.arguments)})> {self.modality}: {self.returns}"


@dataclass(frozen=True)
class ExpertResult:
    """What an expert found.

    `text` goes to the model. `mask` (H, W), or (D, H, W) for a volume, holds integer labels, 0 = background; it goes to
    people, and to the model as an overlay where the session asks for one. `findings` is for programs;
    `findings["labels"]`, if there, names the labels of the mask, e.g. `{1: "liver"}`.
    """

    text: str
    mask: Any | None = None
    findings: dict[str, Any] = field(default_factory=dict)


class Expert(ABC):
    """Base of all experts. Subclasses set `card` and are registered with `@register_expert`.

    An instance is made once, at the first call (load weights in `__init__`, never at import), and kept by the session.
    Both run in a worker thread, so gradients are on in there: a network goes below `torch.inference_mode()`.
    """

    card: ExpertCard
    weights_name: ClassVar[str | None] = None
    """Folder of its weights among those of other experts; its class then takes `folder`, in `unavailable` too."""
    topics: ClassVar[tuple["Topic", ...]] = ()
    """What it can be asked, for making training conversations; without: what its results show (see `topics.py`)."""

    @abstractmethod
    def run(self, path: Path, arguments: tuple[str, ...]) -> ExpertResult:
        """Read the image file at `path` and report. Raises `ExpertError`, worded for the model, when it cannot."""

    @classmethod
    def unavailable(cls) -> str | None:
        """What this machine lacks for the expert, and how to get it; None where it can be used.

        Must be quick and import nothing heavy. An expert that is not available is never offered unless asked for.
        """
        return None

    @classmethod
    def download(cls) -> None:
        """Fetch the weights, because the user asked for it (`radio-vlm experts --download NAME`); never called else."""
        raise ExpertError(f"{cls.card.name} has nothing to download; weights: {cls.card.weights}")

    def check(self, arguments: tuple[str, ...]) -> None:
        """Raise `ExpertError` for arguments that it does not take: those that its card does not list."""
        check_arguments(self.card, arguments)


def check_arguments(card: ExpertCard, arguments: tuple[str, ...]) -> None:
    """Raise `ExpertError` for arguments that the card does not list."""
    if arguments and not card.arguments:
        raise ExpertError(f"{card.name} takes no argument")
    for argument in arguments:
        if argument not in card.arguments:
            raise ExpertError(f"unknown argument {argument}; {card.name} takes {', '.join(card.arguments)}")


_EXPERTS: dict[str, type[Expert]] = {}


def register_expert(cls: type[Expert]) -> type[Expert]:
    """Class decorator: make `cls` callable by the name on its card. A duplicate name raises `ValueError`."""
    name = cls.card.name
    if name in _EXPERTS:
        raise ValueError(f"expert {name} is already registered by {_EXPERTS[name].__module__}")
    _EXPERTS[name] = cls
    return cls


def expert_names() -> list[str]:
    """Names of all registered experts, sorted."""
    return sorted(_EXPERTS)


def get_expert(name: str) -> type[Expert]:
    """The expert class called `name`; `ExpertError` lists the known ones otherwise."""
    if name not in _EXPERTS:
        raise ExpertError(f"unknown expert {name}; known: {', '.join(expert_names())}")
    return _EXPERTS[name]


def card_block(cards: Iterable[ExpertCard]) -> str:
    """The text that offers experts, put before the image in the first user turn; empty when nothing is offered."""
    lines = [card.line() for card in cards]
    return "\n".join(["Experts:", *lines, ""]) if lines else ""


__all__ = [
    "Expert",
    "ExpertCard",
    "ExpertError",
    "ExpertResult",
    "Trigger",
    "TriggerError",
    "card_block",
    "check_arguments",
    "expert_names",
    "get_expert",
    "parse_trigger",
    "register_expert",
]
