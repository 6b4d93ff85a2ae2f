"""The grammar of an expert call, `<NAME(argument, ...)>`: found, parsed, or refused with the reason. Never guessed.

A reply is an answer, or it holds exactly one call. Whatever looks like a call and is not exactly one is an error, so
that a slip of the model is told to the model instead of being shown to a person as the answer. Every search is linear
in the length of the reply, whatever stands in it.
"""

import re
from dataclasses import dataclass

NAME = r"[A-Z][A-Z0-9_]*"
ARGUMENT = r"[A-Za-z0-9][A-Za-z0-9 _-]*"
MAX_LENGTH = 500  # characters of a call; what a card can offer is far shorter
# Characters that are drawn like the grammar's own. A call written with them is a call gone wrong, not prose.
LOOK_ALIKES = str.maketrans("＜‹〈⟨〈﹤（⟮❨﹙＞›〉⟩〉﹥）⟯❩﹚", "<<<<<<((((>>>>>>))))")
START = re.compile(rf"<({NAME})\(")
# Anything that looks like the start of a call: `<NAME(`, in any case and script; with blanks between only when it also
# closes like a call (`HR < x (bpm)` is prose); `<NAME)`, in capitals, lacks its bracket.
ATTEMPT = re.compile(rf"<[^\W\d]\w*\(|<[ \t]*[^\W\d]\w*[ \t]*\([^<>()\n]{{0,100}}\)[ \t]*>|<{NAME}\)")
WITHOUT_START = re.compile(rf"\s*{NAME}\([^()<>\n]*\)>\s*")
FENCE = re.compile(r"```|~~~")
QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "`": "`"}


class ExpertError(ValueError):
    """An expert cannot serve this call. The message is fed back to the model as text, so it is short and plain."""


class TriggerError(ExpertError):
    """The reply contains something that looks like a trigger and is not exactly one valid trigger."""


@dataclass(frozen=True)
class Trigger:
    """One parsed call."""

    name: str
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"<{self.name}({', '.join(self.arguments)})>"


def parse_trigger(text: str) -> Trigger | None:
    """The one trigger in a reply, or None when the reply is an ordinary answer.

    Prose may surround it. Raises `TriggerError` for whatever looks like a call and is not exactly one: two of them,
    nested or missing brackets, lower-case names, look-alike or stray characters, a line break inside, an endless
    argument, a call that is only quoted or stands in a code block.
    """
    seen = text.translate(LOOK_ALIKES)  # one character for one: positions are the same in both
    first = ATTEMPT.search(seen)
    if first is None:
        if WITHOUT_START.fullmatch(seen):
            raise TriggerError("not a valid trigger; write <NAME(argument)>")
        return None
    at = first.start()
    if ATTEMPT.search(seen, at + 1):
        nested = re.compile(r"[^()<>\n]*<").match(seen, first.end())
        # `<A(<B()>)>` opens the second call inside the first one's brackets
        raise TriggerError("one trigger at a time" + ("; triggers cannot be nested" if nested else ""))
    start = START.match(text, at)
    if start is None:
        raise TriggerError(_why_not(text, seen, at))
    end = re.compile(r"[^()<>]*").match(text, start.end()).end()
    inside = text[start.end() : end]
    if len(inside) > MAX_LENGTH:
        raise TriggerError("not a valid trigger; its argument is too long")
    if "\n" in inside or "\r" in inside:
        raise TriggerError("not a valid trigger; write it on one line")
    if not text.startswith(")>", end):
        raise TriggerError("not a valid trigger; write <NAME(argument)>")
    if is_quoted(text, at, end + 2):
        raise TriggerError("a quoted trigger is not run; write it without quotation marks or code block")
    arguments = tuple(part.strip(" \t") for part in inside.split(",")) if inside.strip(" \t") else ()
    for argument in arguments:
        if not re.fullmatch(ARGUMENT, argument):
            raise TriggerError("not a valid trigger; arguments are words with commas between them")
    return Trigger(start[1], arguments)


def _why_not(text: str, seen: str, at: int) -> str:
    """The reason why the attempt at `at` is no trigger, as far as it can be told from its first characters."""
    near = text[at : at + MAX_LENGTH].partition("\n")[0]
    written = near.partition("(")[0]
    if START.match(seen, at) or not written.isascii():
        return "not a valid trigger; use the plain characters < > ( ) and A-Z"
    if START.match(seen.upper(), at):
        return "not a valid trigger; names are written in capitals"
    return "not a valid trigger; write <NAME(argument)>"


def is_quoted(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` stands in a code block, in a quoted line, or directly between quotation marks."""
    if len(FENCE.findall(text, 0, start)) % 2:
        return True
    line = text[text.rfind("\n", 0, start) + 1 : start]
    if line.lstrip().startswith(">") or line.count("`") % 2:
        return True
    before, after = text[start - 1 : start], text[end : end + 1]
    return bool(before) and QUOTES.get(before) == after


def attempt_text(reply: str, limit: int = 100) -> str:
    """The part of a reply that is, or tries to be, a call: for logs, which are not to keep whole replies."""
    found = ATTEMPT.search(reply.translate(LOOK_ALIKES))
    at = found.start() if found else 0
    part = reply[at : at + limit]
    close = part.find(">")
    return " ".join((part[: close + 1] if close >= 0 else part).split())
