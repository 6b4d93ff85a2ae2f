"""A conversation in which the model may call experts: offer cards, run triggers, feed results back, keep a log.

The same code makes the training conversations (`offer_cards`, `result_turn`), serves `chat`, and runs the evaluation
with its controls, so that what is measured is what was trained. The model is just a function from messages to replies.
"""

import functools
import logging
import re
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlm.experts.body_part import card_fits, part_refused
from vlm.experts.call_log import CallLog, ExpertCall
from vlm.experts.conversation import (
    ImageRef,
    Message,
    Messages,
    image_file,
    image_refs,
    offer_cards,
    reply_turn,
    result_turn,
    text_of,
)
from vlm.experts.events import Answer, CallFinished, CallStarted, Event, Offered, TextDelta
from vlm.experts.feedback import FEEDBACK, checked, fed_back
from vlm.experts.image_facts import SILENT, ImageFacts, file_digest, image_facts, modality_of_file
from vlm.experts.open_conversation import OpenConversation, chosen_image
from vlm.experts.pipeline_reply import reply_of
from vlm.experts.private_text import without_identifiers
from vlm.experts.protocol import MODALITY, Expert, ExpertCard, check_arguments, expert_names, get_expert
from vlm.experts.transcript import Transcript
from vlm.experts.trigger import ExpertError, Trigger, attempt_text, parse_trigger
from vlm.experts.weights import open_expert, why_not
from vlm.experts.worker import RaisedError, ThreadWorker

logger = logging.getLogger(__name__)

Generate = Callable[[list[Messages]], list[str]]
GenerateStream = Callable[[Messages], Iterable[str]]
ISOLATION = ("thread", "process")
MAX_ERROR = 300  # characters of an error that the model reads
MAX_ATTEMPT = 100  # characters of a call that cannot be read, in the log


class ExpertSession:
    """Runs conversations with experts, and keeps the experts that were called until it is closed.

    experts: names that may be offered (default: all registered that this machine can run, and all of `instances`).
    max_calls: calls answered per conversation; the call after that is told so, and the reply that follows is the answer
        whatever it says.
    instances: ready-made experts by name, for experts that need arguments of their own and for tests.
    feedback: what the model gets of a result that has a mask: "text", "overlay" (the slice with the mask's regions in
        colour, and a legend) or "both". A result without mask is text in every case.
    call_seconds: after this time a call is given up; loading an expert at its first call is not counted.
    max_voxels, max_bytes: larger images are refused before an expert sees them.
    isolation: experts run in a "thread" each, or in a "process" each, which can be killed; see `vlm.experts.worker`.
    log: a file that gets one JSON line a call, without paths and identifiers.
    weights: a folder with experts' weights (each in a folder `weights_name`); the others' lie where they always do.
    """

    def __init__(
        self,
        experts: Sequence[str] | None = None,
        max_calls: int = 2,
        instances: dict[str, Expert] | None = None,
        *,
        feedback: str = "text",
        call_seconds: float = 120.0,
        max_voxels: int = 2**29,
        max_bytes: int = 2**32,
        isolation: str = "thread",
        log: str | Path | None = None,
        weights: str | Path | None = None,
    ) -> None:
        for name, value in {"max_calls": max_calls, "max_voxels": max_voxels, "max_bytes": max_bytes}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not 0 < call_seconds < float("inf"):
            raise ValueError(f"call_seconds must be a time, not {call_seconds}")
        for name, value, known in (("feedback", feedback, FEEDBACK), ("isolation", isolation, ISOLATION)):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        self.max_calls, self.call_seconds = max_calls, call_seconds
        self.max_voxels, self.max_bytes = max_voxels, max_bytes
        self.feedback, self.isolation = feedback, isolation
        self.instances: dict[str, Expert] = dict(instances or {})
        self.weights = Path(weights).absolute() if weights is not None else None
        usable = [name for name in expert_names() if why_not(get_expert(name), self.weights) is None]
        names = dict.fromkeys([*usable, *self.instances]) if experts is None else experts
        self.cards = {name: (self.instances.get(name) or get_expert(name)).card for name in names}
        self.log = CallLog(log) if log is not None else None
        self._workers: dict[str, Any] = {}

    def __enter__(self) -> "ExpertSession":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all experts that were loaded. A call after this loads its expert again."""
        while self._workers:
            self._workers.popitem()[1].close()

    def fitting(self, path: Path | None, stated: str | None = None) -> list[ExpertCard]:
        """Cards of the experts that may be offered for a file: of its modality and body part, as its header says.

        stated: the modality that counts where the header is silent.
        """
        modality, part = modality_of_file(path, stated), image_facts(path).body_part
        return [card for card in self.cards.values() if card_fits(card, modality, part)]

    def __call__(self, messages: Messages, generate: Any, offer: bool = True) -> Transcript:
        """One conversation, as with a `transformers` pipeline.

        generate: a `pipeline("image-text-to-text")`, or a function from messages to the reply (text).
        """
        return self.run(lambda batch: [reply_of(generate, one) for one in batch], messages, offer=offer)

    def run(self, generate: Generate, messages: Messages, offer: bool = True) -> Transcript:
        """One conversation; see `run_batch`."""
        return self.run_batch(generate, [messages], offer=offer)[0]

    def run_batch(
        self,
        generate: Generate,
        conversations: Sequence[Messages],
        offer: bool = True,
        expert_override: Sequence[str | Path | None] | None = None,
        extra_cards: Sequence[Sequence[str] | None] | None = None,
    ) -> list[Transcript]:
        """Answer the last user turn of every conversation, calling experts where the model asks for them.

        generate: maps a list of conversations to a list of replies; each round calls it once, with the conversations
            still open, cards and results already in their messages.
        conversations: messages ending in a user turn, without cards; image items hold paths that can be opened. With
            several images an expert reads the last one that fits it, or the one of an argument `image N`.
        offer: False withholds the cards (control "expert withheld"); a trigger is then answered by an error.
        expert_override: for each conversation the file that experts read instead of the conversation's own image, or
            None (control "expert wrong": the file of a sample whose answer differs).
        extra_cards: for each conversation experts whose cards are shown beside those that fit, or None. A call of one
            that does not fit is refused as in every conversation (the question "wrong modality").
        Returns one `Transcript` per conversation, in order. An expert that fails never raises: its message is fed back.
        """
        if expert_override is not None and len(expert_override) != len(conversations):
            raise ValueError(f"{len(expert_override)} expert_override files for {len(conversations)} conversations")
        if extra_cards is not None and len(extra_cards) != len(conversations):
            raise ValueError(f"{len(extra_cards)} extra_cards lists for {len(conversations)} conversations")
        states = []
        for index, messages in enumerate(conversations):
            override = expert_override[index] if expert_override is not None else None
            extra = extra_cards[index] if extra_cards is not None else None
            states.append(self._open(messages, offer, override, f"conversation {index}", extra or ()))
        open_ = states
        while open_:
            replies = generate([state.transcript.messages for state in open_])
            if len(replies) != len(open_):
                raise ValueError(f"generate returned {len(replies)} replies for {len(open_)} conversations")
            still_open = []
            for state, reply in zip(open_, replies, strict=True):
                call = self._read(state, reply)
                if call is not None:
                    self._finish(state, self._call(state, reply, *call))
                    still_open.append(state)
            open_ = still_open
        return [state.transcript for state in states]

    def stream(
        self,
        generate_stream: GenerateStream,
        messages: Messages,
        offer: bool = True,
        expert_override: str | Path | None = None,
    ) -> Iterator[Event]:
        """One conversation, as events in the order in which they happen; see `vlm.experts.events`.

        generate_stream: maps messages to the pieces of the reply, as they are written.
        """
        state = self._open(messages, offer, expert_override, "the conversation")
        yield Offered(tuple(state.transcript.offered), tuple(state.transcript.notes))
        while True:
            pieces = []
            for piece in generate_stream(state.transcript.messages):
                pieces.append(piece)
                yield TextDelta(piece)
            reply = "".join(pieces)
            call = self._read(state, reply)
            if call is None:
                yield Answer(reply, state.transcript)
                return
            yield CallStarted(call[0])
            done = self._call(state, reply, *call)
            self._finish(state, done)
            yield CallFinished(done)

    def _open(
        self,
        messages: Messages,
        offer: bool,
        override: str | Path | None,
        what: str,
        extra: Sequence[str] = (),
    ) -> OpenConversation:
        if not messages or messages[-1]["role"] != "user":
            raise ValueError(f"{what} must end in a user turn")
        files = image_refs(messages)
        fitting = {ref.number: self.fitting(ref.path, ref.modality) for ref in files} if offer else {}
        besides = [self._card(name) for name in extra] if offer else []
        state = OpenConversation.of(messages, files, fitting, list(self.cards), override, besides)
        for ref in files if offer and self.cards else []:
            if not fitting[ref.number]:
                part = any(part_refused(card, [shown_by(ref)]) for card in self.cards.values())
                kind = f"{kind_of(ref)} of {shown_by(ref)[1]}" if part else kind_of(ref)
                state.transcript.notes.append(f"image {ref.number} is {kind}: no expert is offered for it")
        for note in state.transcript.notes:
            logger.info("%s", note)
        if self.log is not None:
            digests = {str(ref.number): file_digest(ref.path) for ref in files}
            self.log.write("offer", files=digests, experts=state.transcript.offered, notes=state.transcript.notes)
        return state

    def _card(self, name: str) -> ExpertCard:
        """The card of one of the session's experts. Raises `ExpertError` for any other name."""
        if name not in self.cards:
            raise ExpertError(f"unknown expert {name}; known: {', '.join(self.cards)}")
        return self.cards[name]

    def _read(self, state: OpenConversation, reply: str) -> tuple[Trigger | None, ExpertError | None] | None:
        """Take a reply in. None when it is the answer; else what was called, or why that cannot be read."""
        if not isinstance(reply, str):
            raise TypeError(f"a reply must be text, not {type(reply).__name__}")
        transcript = state.transcript
        transcript.messages.append(reply_turn(reply))
        transcript.answer = reply
        # One call beyond the limit is told so; after it the conversation ends.
        if len(transcript.calls) > self.max_calls:
            return None
        try:
            trigger = parse_trigger(reply)
        except ExpertError as error:
            return None, error
        return None if trigger is None else (trigger, None)

    def _finish(self, state: OpenConversation, call: ExpertCall) -> None:
        state.transcript.calls.append(call)
        state.transcript.messages.append(result_turn(call.text, state.question, call.overlay))

    def _call(
        self, state: OpenConversation, reply: str, trigger: Trigger | None, problem: ExpertError | None
    ) -> ExpertCall:
        """Run a trigger. Never raises: errors are text for the model."""
        start, result, overlay, path, facts = time.perf_counter(), None, None, None, ImageFacts(None, "no file")
        expert_seconds, name = 0.0, trigger.name if trigger else "expert"
        try:
            if problem is not None:
                raise problem
            if len(state.transcript.calls) >= self.max_calls:
                raise ExpertError("no more calls")
            shown, arguments = self._chosen(state, trigger)
            path = Path(state.override) if state.override is not None else shown
            facts = image_facts(path)
            self._check_size(facts)
            check_arguments(self.cards[trigger.name], arguments)  # before anything is loaded
            worker = self._worker(trigger.name)
            try:
                raw = worker.call(path, arguments, self.call_seconds)
            finally:
                expert_seconds = worker.run_seconds
            found = checked(raw, trigger.name, facts)
            # before anything is cut: half a name would not be found
            found = replace(found, text=without_identifiers(found.text, path, facts.identifiers))
            text, overlay = fed_back(found, self.feedback, path, shown)
            result = found
        except ExpertError as error:
            text = f"error: {without_identifiers(str(error), path, facts.identifiers)[:MAX_ERROR]}"
        except Exception as error:
            # An expert is foreign code: whatever it raises, the model is told and the conversation goes on.
            kind = error.args[0] if isinstance(error, RaisedError) else type(error).__name__
            message = error.args[1] if isinstance(error, RaisedError) else str(error)
            message = without_identifiers(message, path, facts.identifiers)[:MAX_ERROR]
            logger.warning("expert %s failed: %s: %s; in %s", name, kind, message, frames(error))
            text = f"error: {name} failed: {kind}"
        path = path or (Path(state.override) if state.override is not None else state.last_file)
        facts = image_facts(path)
        text = without_identifiers(text, path, facts.identifiers)
        trigger_ok = trigger or Trigger("INVALID")
        call = ExpertCall(
            reply, trigger_ok.name, trigger_ok.arguments, str(path) if path else None, result is not None, text,
            time.perf_counter() - start, result, expert_seconds, overlay,
        )  # fmt: skip
        self._note(call, trigger, path, facts)
        return call

    def _note(self, call: ExpertCall, trigger: Trigger | None, path: Path | None, facts: ImageFacts) -> None:
        """The call's line in the log."""
        attempt = str(trigger or attempt_text(call.trigger, 10 * MAX_ATTEMPT))
        written = without_identifiers(attempt, path, facts.identifiers)[: None if trigger else MAX_ATTEMPT]
        logger.info("expert call %s: %s", written, call.text)
        if self.log is None:
            return
        arguments = [without_identifiers(argument, path, facts.identifiers) for argument in call.arguments]
        mask = None if call.result is None or call.result.mask is None else bool(call.result.mask.any())
        self.log.write(
            "call", trigger=written, expert=call.name, arguments=arguments, file=file_digest(path), ok=call.ok,
            text=call.text, marked=mask, overlay=call.overlay is not None, seconds=round(call.seconds, 4),
            expert_seconds=round(call.expert_seconds, 4),
        )  # fmt: skip

    def _chosen(self, state: OpenConversation, trigger: Trigger) -> tuple[Path, tuple[str, ...]]:
        """The image that a call is for, and the arguments left for the expert.

        Raises `ExpertError` for an unknown expert, one that is not offered, one that does not fit, or no file.
        """
        name = trigger.name
        card = self._card(name)
        if name not in state.transcript.offered:
            if not state.fitting:  # withheld, or no image in a file
                raise ExpertError(f"{name} is not available")
            kinds = ", ".join(dict.fromkeys(map(kind_of, state.files)))
            why = part_refused(card, map(shown_by, state.files)) or f"it reads {card.modality}, the image is {kinds}"
            raise ExpertError(f"{name} is not available: {why}")
        return chosen_image(trigger, card, state.candidates(name))

    def _check_size(self, facts: ImageFacts) -> None:
        if facts.voxels > self.max_voxels:
            raise ExpertError(f"the image is too large: {facts.voxels:,} voxels, at most {self.max_voxels:,}")
        if facts.size > self.max_bytes:
            raise ExpertError(f"the image is too large: {facts.size:,} bytes, at most {self.max_bytes:,}")

    def _worker(self, name: str) -> Any:
        """The worker of an expert; the expert itself is loaded at its first call."""
        if name not in self._workers:
            instance = self.instances.get(name)
            make = None if instance else functools.partial(open_expert, get_expert(name), self.weights)
            if self.isolation == "process":
                from vlm.experts.process_worker import ProcessWorker

                self._workers[name] = ProcessWorker(name, instance or make)
            else:
                self._workers[name] = ThreadWorker(name, (lambda: instance) if instance else make)
        return self._workers[name]


def frames(error: BaseException) -> str:
    """Where an error came from, innermost last, without its message: `expert.py:12 run`."""
    found = traceback.extract_tb(error.__traceback__)[-3:]
    return ", ".join(f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in found) or "another process"


def kind_of(ref: ImageRef) -> str:
    """What an image is, in words: its header's, or the message's where the header is silent."""
    kind = image_facts(ref.path).kind
    stated = ref.modality and kind.startswith(SILENT) and re.fullmatch(MODALITY, ref.modality)
    return ref.modality if stated else kind


def shown_by(ref: ImageRef) -> tuple[str | None, str | None]:
    """(modality, body part) of an image; None for what neither its header nor the message says."""
    return modality_of_file(ref.path, ref.modality), image_facts(ref.path).body_part


__all__ = [
    "ExpertCall",
    "ExpertSession",
    "Generate",
    "Message",
    "Messages",
    "Transcript",
    "image_file",
    "image_refs",
    "offer_cards",
    "reply_turn",
    "result_turn",
    "text_of",
]
