"""What an expert declares (its card), what it returns, and the trigger by which a language model asks for it.

The idea is VILA-M3's (arXiv 2411.12915): cards stand in the first user turn, the model answers with `<NAME(arg, ...)>`,
the expert's result comes back as text in the next user turn. Two things are stricter here: triggers are parsed by a
grammar (never by looking for a name inside the text), and experts are found in a registry (never in a caller's list).
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAME = r"[A-Z][A-Z0-9_]*"
ARGUMENT = r"[A-Za-z0-9][A-Za-z0-9 _-]*"
# A strict trigger, and anything that looks like the start of one: the second finds what the first must then accept.
TRIGGER = re.compile(rf"<({NAME})\(\s*((?:{ARGUMENT}(?:\s*,\s*{ARGUMENT})*)?)\s*\)>")
ATTEMPT = re.compile(r"<\s*[A-Za-z_]\w*\s*\(")


class ExpertError(ValueError):
    """An expert cannot serve this call. The message is fed back to the model as text, so it is short and plain."""


class TriggerError(ExpertError):
    """The reply contains something that looks like a trigger and is not exactly one valid trigger."""


@dataclass(frozen=True)
class ExpertCard:
    """The declaration of an expert: all that the model, the session and the reader of a report need to know of it."""

    name: str
    """Upper-case name, as it stands in the trigger."""
    modality: str
    """DICOM modality that it reads (`CT`, `MR`, `DX`, ...); an image of another or of no modality is refused."""
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
        for argument in self.arguments:
            if not re.fullmatch(ARGUMENT, argument):
                raise ValueError(f"argument {argument!r} of expert {self.name} must match {ARGUMENT}")

    def line(self) -> str:
        """One line for the prompt, e.g. `<LESIONS()> CT: lesions`."""
        return f"<{self.name}({'|'.join(self.arguments)})> {self.modality}: {self.returns}"


@dataclass(frozen=True)
class ExpertResult:
    """What an expert found: `text` goes to the model; `mask` (H, W) integer labels, 0 = background, goes to people."""

    text: str
    mask: Any | None = None
    findings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trigger:
    """One parsed call."""

    name: str
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"<{self.name}({', '.join(self.arguments)})>"


class Expert(ABC):
    """Base of all experts. Subclasses set `card` and are registered with `@register_expert`.

    An instance is made once, at the first call (load weights in `__init__`, never at import), and kept by the session.
    """

    card: ExpertCard

    @abstractmethod
    def run(self, path: Path, arguments: tuple[str, ...]) -> ExpertResult:
        """Read the image file at `path` and report. Raises `ExpertError`, worded for the model, when it cannot."""

    def check(self, arguments: tuple[str, ...]) -> None:
        """Raise `ExpertError` for arguments that the card does not list."""
        valid = self.card.arguments
        if arguments and not valid:
            raise ExpertError(f"{self.card.name} takes no argument")
        for argument in arguments:
            if argument not in valid:
                raise ExpertError(f"unknown argument {argument}; {self.card.name} takes {', '.join(valid)}")


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


def parse_trigger(text: str) -> Trigger | None:
    """The one trigger in a reply, or None when the reply is an ordinary answer.

    Prose may surround it. Raises `TriggerError` for two triggers, nested brackets, lower-case names, stray characters:
    whatever looks like a call and is not exactly one.
    """
    attempts = list(ATTEMPT.finditer(text))
    if not attempts:
        return None
    if len(attempts) > 1:
        raise TriggerError("one trigger at a time")
    match = TRIGGER.match(text, attempts[0].start())
    if match is None:
        raise TriggerError("not a valid trigger; write <NAME(argument)>")
    arguments = tuple(part.strip() for part in match[2].split(",")) if match[2].strip() else ()
    return Trigger(match[1], arguments)
