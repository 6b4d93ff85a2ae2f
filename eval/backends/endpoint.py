"""A model behind an OpenAI-compatible `/chat/completions`: `radio-vlm serve`, vLLM, a vendor's API.

Requests of a batch run side by side. What a server does with sizes of pictures, its chat template or its weights is its
own; the results file says which server it was and what that says of itself. Ours says how it samples videos: it gets
them whole, so that the answers are those of its model in this process. Others get frames.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

from eval.backends.base import Backend, Batch, Decoding, Encoded, Messages, Reply
from eval.backends.open_media import VIDEO, FrameSampling, items_of
from eval.backends.openai_client import JsonServer, ServerError, UnreachableError
from eval.backends.openai_messages import FRAME_QUALITY, MAX_BYTES, MAX_PIXELS, payload_bytes, shown, to_openai

logger = logging.getLogger(__name__)

PARALLEL = 32  # requests at once, at most, whatever the batch size
TIMEOUT = 600.0  # seconds without a byte from the server
MAX_STOPS = 4  # of OpenAI's protocol; further stop strings are cut here alone
OURS = "radio-vlm"  # owner of the models that `radio-vlm serve` lists
CHARACTERS_A_TOKEN, PIXELS_A_TOKEN = 4, 28 * 28  # estimates, for sorting


class EndpointBackend(Backend):
    """One model of one server."""

    name = "endpoint"

    def __init__(self, base_url: str, model: str, api_key: str | None = None, **patience: Any) -> None:
        """`base_url`: up to where `/chat/completions` follows, mostly ending in /v1. `patience`: see `JsonServer`.

        Raises ValueError for an address with a password in it.
        """
        self.server = JsonServer(base_url, api_key, **({"timeout": TIMEOUT, "first_wait": 1.0} | patience))
        self.model = model
        self._warned, self._warning = False, threading.Lock()

    @cached_property
    def processor(self) -> FrameSampling:
        """How videos are sampled that are opened here: as our own server's processor does, for others as by default."""
        return FrameSampling({name: self._says_of_itself["video"][name] for name in VIDEO} if self._is_ours else VIDEO)

    @property
    def _is_ours(self) -> bool:
        """Whether it is `radio-vlm serve`, and says how it samples videos."""
        says = self._says_of_itself
        return says.get("owned_by") == OURS and isinstance(says.get("video"), dict) and set(VIDEO) <= set(says["video"])

    def encode(self, messages: Messages, sample_id: str) -> Encoded:
        kinds = {item["type"] for message in messages for item in items_of(message)}
        if kinds == {"text"}:  # no need to know the server
            sent, sizes = to_openai(messages, VIDEO)
        else:
            sent, sizes = to_openai(messages, self.processor.video, exact=self._is_ours)
        if "video" in kinds and not self._is_ours:
            self._warn_of_frames()
        prompt = shown(sent)
        nbytes = payload_bytes(sent)
        tokens = sum(width * height // PIXELS_A_TOKEN for width, height in sizes)
        return Encoded(sent, len(prompt) // CHARACTERS_A_TOKEN + tokens, nbytes + len(prompt), prompt=prompt)

    def _warn_of_frames(self) -> None:
        with self._warning:
            warned, self._warned = self._warned, True
        if not warned:
            logger.warning(
                "%s is given the frames of videos as pictures with their times; a model that takes videos as such may "
                "score lower than it should (only `radio-vlm serve` is sent whole videos)", self.server.base_url,
            )  # fmt: skip

    def generate(self, batch: list[Encoded], decoding: Decoding) -> Batch:
        """A request that the server refuses is a reply with an error: its neighbours have nothing to do with it."""
        with ThreadPoolExecutor(min(len(batch), PARALLEL), "request") as pool:
            return Batch(list(pool.map(lambda one: self._reply(one.data, decoding), batch)))

    def _reply(self, messages: Messages, decoding: Decoding) -> Reply:
        payload: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": decoding.max_new_tokens,
        }
        if decoding.stop:
            payload["stop"] = list(decoding.stop[:MAX_STOPS])
        started = time.perf_counter()
        try:
            answer = self.server.post("/chat/completions", payload)
            reply = read_answer(answer, decoding)
        except ServerError as error:
            reply = Reply(error=f"{type(error).__name__}: {error}")
        reply.seconds = round(time.perf_counter() - started, 4)
        return reply

    def describe(self) -> dict[str, Any]:
        """Raises OSError where there is no server, ValueError where it refuses the key or lists other models only."""
        return {
            "class": type(self).__name__,
            "server": self.server.base_url,
            "model": self.model,
            "says_of_itself": (says := self._says_of_itself),
            "images": "JPEG and PNG as stored, others as PNG"
            + ("" if self._is_ours else f"; at most {MAX_PIXELS:,} pixels and {MAX_BYTES:,} bytes"),
            "video": {
                **self.processor.video,
                "given_as": "video" if self._is_ours else f"JPEG images (quality {FRAME_QUALITY}) with times",
            },
            "chat_template": None,
            "fingerprint": says.get("fingerprint"),
        }

    @cached_property
    def _says_of_itself(self) -> dict[str, Any]:
        """The server's own entry for the model; empty where it has none. Asked for once."""
        try:
            answer = self.server.get("/models")
        except UnreachableError as error:
            raise ConnectionError(f"--model: {error}") from None
        except ServerError as error:
            if error.status in (401, 403):
                raise ValueError(f"--model: {error} (the key is read from OPENAI_API_KEY)") from None
            logger.warning("%s/models: %s", self.server.base_url, error)
            return {}
        listed = answer.get("data") if isinstance(answer, dict) else None
        entries = {str(one.get("id")): one for one in listed or [] if isinstance(one, dict)}
        if entries and self.model not in entries:
            known = ", ".join(sorted(entries)[:10])
            raise ValueError(f"--model: {self.server.base_url} lists no model {self.model}; it lists: {known}")
        return entries.get(self.model, {})


def read_answer(answer: Any, decoding: Decoding) -> Reply:
    """The reply in a chat completion. Raises ServerError where there is none."""
    try:
        choice = answer["choices"][0]
        content, why = choice["message"].get("content"), choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ServerError(f"the server's answer has no choices: {str(answer)[:300]}") from None
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content)
    if not isinstance(content, str):
        refusal = choice["message"].get("refusal")
        raise ServerError(f"the server gave no text (finish_reason {why}){f': {refusal}' if refusal else ''}")
    usage = answer.get("usage") or {}
    text, cut = decoding.cut(content)
    return Reply(
        text.strip(),
        prompt_tokens=usage.get("prompt_tokens") or 0,
        media_tokens=(usage.get("prompt_tokens_details") or {}).get("media_tokens") or 0,
        tokens=usage.get("completion_tokens") or 0,
        stopped=cut or why != "length",
    )
