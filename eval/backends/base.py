"""The contract between the runner and whatever answers: encode a prompt, answer a batch of encoded prompts.

A backend knows nothing of tasks, order, files or failures; `eval.generation.Generator` sorts, batches, halves, counts
and remembers for all of them. Its answers must depend on the prompt alone, not on the batch it came in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.backends.yes_no import YesNo

Messages = list[dict[str, Any]]


class RefusedError(ValueError):
    """A backend that cannot answer any such question; found before the first one."""


@dataclass(frozen=True)
class Decoding:
    """How answers are made: greedily, up to `max_new_tokens`, cut before the first of the `stop` strings."""

    max_new_tokens: int
    stop: tuple[str, ...] = ()

    def cut(self, text: str) -> tuple[str, bool]:
        """`text` before the first stop string, and whether there was one."""
        places = [place for string in self.stop if (place := text.find(string)) >= 0]
        return (text[: min(places)], True) if places else (text, False)


@dataclass
class Encoded:
    """A prompt ready to be answered. `data` is the backend's own; the rest is what the runner needs to know of it."""

    data: Any
    length: int  # tokens, or the backend's estimate: prompts of like length share a batch
    nbytes: int = 0  # memory it holds while it waits
    media_tokens: int = 0  # of `length`; 0 where the backend cannot tell
    prompt: str = ""  # as the model sees it, placeholders collapsed; filled by `Backend.rendered`


@dataclass
class Reply:
    """The answer to a request, and what it took. `error` says why there is none."""

    text: str = ""
    prompt: str = ""
    prompt_tokens: int = 0
    media_tokens: int = 0
    tokens: int = 0
    stopped: bool = False  # False: cut by max_new_tokens
    seconds: float = 0.0  # encoding, and an equal share of its batch
    input_hash: str = ""
    error: str | None = None


@dataclass
class Clock:
    """Seconds and tokens of a run, by phase. Prefill ends with the first new token of a batch."""

    requests: int = 0
    prompt_tokens: int = 0
    media_tokens: int = 0
    new_tokens: int = 0
    encode_seconds: float = 0.0
    prefill_seconds: float = 0.0
    generate_seconds: float = 0.0  # prefill included

    @classmethod
    def total(cls, clocks: Iterable[Clock]) -> Clock:
        """The sum over processes: seconds are those of every process added up."""
        columns = [vars(clock) for clock in clocks]
        return cls(**{name: sum(column[name] for column in columns) for name in columns[0]})

    def since(self, before: Clock) -> dict[str, float]:
        """What was added after `before` was copied."""
        return {name: round(value - getattr(before, name), 3) for name, value in vars(self).items()}


@dataclass
class Batch:
    """What a backend answers to a batch: one reply per prompt, and when the first token was there (None: unknown)."""

    replies: list[Reply] = field(default_factory=list)
    prefill_seconds: float | None = None


class Backend:
    """Base of all backends."""

    name = ""
    on_cpu: bool = False  # answers are computed where prompts are encoded: doing both at once gains nothing
    processor: Any = None  # where there is one: controls sample video frames as it does

    def check(self, media_kinds: set[str]) -> None:
        """Called once, before the first question. `media_kinds`: image, video, document, as far as they are asked of.

        Raises RefusedError where questions about one of them cannot be answered.
        """

    def encode(self, messages: Messages, sample_id: str) -> Encoded:
        """A prompt as this backend wants it. Raises what its libraries raise: the sample is then counted as failed.

        Called from several threads.
        """
        raise NotImplementedError

    def rendered(self, encoded: Encoded) -> str:
        """The prompt as the model sees it, for the results file."""
        return encoded.prompt

    def generate(self, batch: list[Encoded], decoding: Decoding) -> Batch:
        """Answers of a batch, in its order. Raises on failure; a failing batch is halved until one sample is left."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """What a results file says of the model: class, sizes, geometry, template, a `fingerprint` of its weights."""
        raise NotImplementedError

    def yes_no(self, batch: list[Encoded]) -> list[YesNo] | None:
        """How probable "yes" is as the answer to each prompt (`eval.backends.yes_no`); None: cannot be known here."""
        return None

    def max_batch_size(self) -> int | None:
        """The most prompts `generate` takes at once; None: no limit."""
        return None

    def answer_probability(self, messages: Messages) -> tuple[float, int]:
        """(geometric mean probability of the tokens of the last turn, their number).

        Raises ValueError where the backend cannot look into its model.
        """
        raise ValueError(f"answers cannot be weighed through {self.name}: probabilities are not to be had")
