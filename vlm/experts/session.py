"""A conversation in which the model may call experts: offer cards, run triggers, feed results back, keep a log.

The same code makes the training conversations (`offer_cards`, `result_turn`), serves `chat`, and runs the evaluation
with its controls, so that what is measured is what was trained. The model is just a function from messages to replies.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm.experts.protocol import (
    Expert,
    ExpertCard,
    ExpertError,
    ExpertResult,
    Trigger,
    card_block,
    expert_names,
    get_expert,
    parse_trigger,
)

logger = logging.getLogger(__name__)

Message = dict[str, Any]
Messages = list[Message]
Generate = Callable[[list[Messages]], list[str]]


@dataclass
class ExpertCall:
    """One line of the log: what the model wrote, what was run on which file, what came back."""

    trigger: str
    name: str
    arguments: tuple[str, ...]
    file: str | None
    ok: bool
    text: str
    seconds: float
    result: ExpertResult | None = None

    def as_json(self) -> dict[str, Any]:
        """The call without the mask, for result files."""
        row = {key: value for key, value in vars(self).items() if key != "result"}
        return row | {"arguments": list(self.arguments)}


@dataclass
class Transcript:
    """A finished conversation: all messages (cards and results included), the calls, the last reply."""

    messages: Messages
    answer: str = ""
    calls: list[ExpertCall] = field(default_factory=list)
    offered: list[str] = field(default_factory=list)

    @property
    def triggered(self) -> bool:
        """Whether the model wrote anything that is or tries to be a trigger."""
        return bool(self.calls)


def text_of(message: Message) -> str:
    """The text of one message, media left out."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(item["text"] for item in content if item["type"] == "text")


def image_file(messages: Messages) -> Path | None:
    """The file of the last image of a conversation; None when there is none or it is held in memory."""
    for message in reversed(messages):
        if isinstance(message["content"], str):
            continue
        for item in reversed(message["content"]):
            if item["type"] == "image" and isinstance(item.get("image"), str | Path):
                return Path(item["image"])
    return None


def offer_cards(messages: Messages, cards: Sequence[ExpertCard]) -> Messages:
    """A copy of `messages` whose first user turn starts with the cards; unchanged when `cards` is empty."""
    block = card_block(cards)
    if not block:
        return [dict(message) for message in messages]
    out, done = [], False
    for message in messages:
        if message["role"] == "user" and not done:
            content = message["content"]
            items = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
            message, done = {**message, "content": [{"type": "text", "text": block}, *items]}, True
        out.append(dict(message))
    return out


def result_turn(text: str, question: str) -> Message:
    """The user turn that brings an expert's answer (or an error) back, with the question once more after it."""
    return {"role": "user", "content": [{"type": "text", "text": f"{text}\n{question}"}]}


def reply_turn(text: str) -> Message:
    """An assistant turn."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


class ExpertSession:
    """Runs conversations with experts.

    `experts`: names that may be offered (default: all registered and all of `instances`). `max_calls`: calls answered
    per conversation; the call after that is told so, and the reply that follows is the answer whatever it says.
    `instances`: ready-made experts by name, for experts that need arguments of their own and for tests.
    """

    def __init__(
        self, experts: Sequence[str] | None = None, max_calls: int = 2, instances: dict[str, Expert] | None = None
    ) -> None:
        if max_calls < 1:
            raise ValueError(f"max_calls must be at least 1, not {max_calls}")
        self.max_calls = max_calls
        self.instances: dict[str, Expert] = dict(instances or {})
        names = dict.fromkeys([*expert_names(), *self.instances]) if experts is None else experts
        self.cards = {name: (self.instances.get(name) or get_expert(name)).card for name in names}

    def fitting(self, path: Path | None) -> list[ExpertCard]:
        """Cards of the experts that may be offered for a file: those of its modality, read from its header."""
        modality = file_modality(path)
        return [card for card in self.cards.values() if card.modality == modality]

    def run(self, generate: Generate, messages: Messages, offer: bool = True) -> Transcript:
        """One conversation; see `run_batch`."""
        return self.run_batch(generate, [messages], offer=offer)[0]

    def run_batch(
        self,
        generate: Generate,
        conversations: Sequence[Messages],
        offer: bool = True,
        expert_override: Sequence[str | Path | None] | None = None,
    ) -> list[Transcript]:
        """Answer the last user turn of every conversation, calling experts where the model asks for them.

        generate: maps a list of conversations to a list of replies; each round calls it once, with the conversations
            still open, cards and results already in their messages.
        conversations: messages ending in a user turn, without cards; image items hold paths that can be opened.
        offer: False withholds the cards (control "expert withheld"); a trigger is then answered by an error.
        expert_override: for each conversation the file that experts read instead of the conversation's own image, or
            None (control "expert wrong": the file of a sample whose answer differs).
        Returns one `Transcript` per conversation, in order. An expert that fails never raises: its message is fed back.
        """
        if expert_override is not None and len(expert_override) != len(conversations):
            raise ValueError(f"{len(expert_override)} expert_override files for {len(conversations)} conversations")
        transcripts, files, questions = [], [], []
        for index, messages in enumerate(conversations):
            if not messages or messages[-1]["role"] != "user":
                raise ValueError(f"conversation {index} must end in a user turn")
            path = image_file(messages)
            cards = self.fitting(path) if offer else []
            transcripts.append(Transcript(offer_cards(messages, cards), offered=[card.name for card in cards]))
            files.append((expert_override[index] if expert_override is not None else None) or path)
            questions.append(text_of(messages[-1]))
        open_ = list(range(len(transcripts)))
        while open_:
            replies = generate([transcripts[i].messages for i in open_])
            if len(replies) != len(open_):
                raise ValueError(f"generate returned {len(replies)} replies for {len(open_)} conversations")
            still_open = []
            for i, reply in zip(open_, replies, strict=True):
                transcript = transcripts[i]
                transcript.messages.append(reply_turn(reply))
                transcript.answer = reply
                # One call beyond the limit is told so; after it the conversation ends.
                call = self._call(reply, transcript, files[i]) if len(transcript.calls) <= self.max_calls else None
                if call is not None:
                    transcript.calls.append(call)
                    transcript.messages.append(result_turn(call.text, questions[i]))
                    still_open.append(i)
            open_ = still_open
        return transcripts

    def _call(self, reply: str, transcript: Transcript, path: str | Path | None) -> ExpertCall | None:
        """Run the trigger of a reply; None when the reply is an answer. Never raises: errors are text for the model."""
        start, trigger, result = time.perf_counter(), None, None
        try:
            trigger = parse_trigger(reply)
            if trigger is None:
                return None
            if len(transcript.calls) >= self.max_calls:
                raise ExpertError("no more calls")
            result = self._run(trigger, transcript.offered, path)
            text = result.text
        except ExpertError as error:
            text = f"error: {error}"
        except Exception as error:
            # An expert is foreign code: whatever it raises, the model is told and the conversation goes on.
            logger.exception("expert %s failed on %s", trigger, path)
            text = f"error: {trigger.name if trigger else 'expert'} failed: {type(error).__name__}"
        trigger_ok = trigger or Trigger("INVALID")
        call = ExpertCall(
            reply, trigger_ok.name, trigger_ok.arguments, str(path) if path else None, result is not None, text,
            time.perf_counter() - start, result,
        )  # fmt: skip
        logger.info("expert call %s on %s: %s", trigger or "(invalid)", path, text)
        return call

    def _run(self, trigger: Trigger, offered: list[str], path: str | Path | None) -> ExpertResult:
        """The expert's result; `ExpertError` for an unknown or not offered expert, wrong arguments, or no file."""
        if trigger.name not in self.cards:
            raise ExpertError(f"unknown expert {trigger.name}; known: {', '.join(self.cards)}")
        if trigger.name not in offered:
            raise ExpertError(f"{trigger.name} is not available")
        if path is None:
            raise ExpertError("there is no image file")
        if trigger.name not in self.instances:
            self.instances[trigger.name] = get_expert(trigger.name)()
        expert = self.instances[trigger.name]
        expert.check(trigger.arguments)
        result = expert.run(Path(path), trigger.arguments)
        if not isinstance(result, ExpertResult):
            raise TypeError(f"{trigger.name} returned {type(result).__name__}, not ExpertResult")
        return result


def file_modality(path: Path | None) -> str | None:
    """The modality that a DICOM header states; None for anything else (no guess from the file's name)."""
    if path is None or not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        if file.read(132)[128:] != b"DICM":
            return None
    try:
        import pydicom
    except ImportError as error:
        raise ImportError("reading DICOM needs pydicom: pip install 'radio-vlm[medical]'") from error
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality"])
    except Exception as error:
        logger.warning("cannot read the DICOM header of %s: %s", path, error)
        return None
    return str(header.get("Modality", "")) or None


__all__ = ["ExpertCall", "ExpertSession", "Transcript", "offer_cards", "reply_turn", "result_turn"]
