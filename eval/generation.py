"""Greedy answers in batches: encode, sort by length, pad left, generate, and put the answers back in order.

Sorting keeps padding small; padding is on the left so that every answer starts at the same column; greedy decoding
makes an answer depend on its own prompt only, so neither order nor batch size changes it (a test compares with one
by one). A request that cannot be encoded or generated becomes a `Reply` with an `error`, never a crash.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

Messages = list[dict[str, Any]]
# Encoded prompts wait in memory to be sorted. Pages of real documents are large: at this size the wait is over.
WINDOW_BYTES = 1 << 30


@dataclass(frozen=True)
class Request:
    """A prompt to be answered. `messages` may be a function, so that media are opened only when their turn comes."""

    id: str
    messages: Messages | Callable[[], Messages]


@dataclass
class Reply:
    """The answer to a request: its text without the end-of-turn token, and the rendered prompt for the results file."""

    text: str = ""
    prompt: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    stopped: bool = False  # False: cut by max_new_tokens
    error: str | None = None


class Generator:
    """Answers requests with one model and its processor.

    `processor` needs `encode(messages, add_generation_prompt, sample_id)`, `collate(rows, padding_side)` and
    `tokenizer`; `model` needs `generate`. Counts prompts, tokens and seconds for the results file.
    """

    def __init__(self, model: Any, processor: Any, batch_size: int = 64, progress: bool = True) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.model, self.processor = model.eval(), processor
        self.batch_size, self.progress = batch_size, progress
        self.stop_ids = stop_token_ids(model, processor)
        pad = processor.tokenizer.pad_token_id
        self.pad_id = pad if pad is not None else self.stop_ids[0]
        self.spent = dict.fromkeys(("requests", "prompt_tokens", "new_tokens"), 0)
        self.spent |= dict.fromkeys(("encode_seconds", "generate_seconds"), 0.0)

    def answer(self, requests: Sequence[Request], max_new_tokens: int, label: str = "") -> list[Reply]:
        """One reply per request, in their order."""
        replies: list[Reply | None] = [None] * len(requests)
        with tqdm(total=len(requests), desc=label, unit="q", disable=not self.progress, mininterval=0.5) as bar:
            waiting: list[tuple[int, dict[str, torch.Tensor]]] = []
            held = 0
            for index, request in enumerate(requests):
                row = self._encode(request)
                if isinstance(row, Reply):
                    replies[index] = row
                    bar.update()
                else:
                    waiting.append((index, row))
                    held += sum(value.nbytes for value in row.values() if torch.is_tensor(value))
                full = held > WINDOW_BYTES and len(waiting) >= self.batch_size
                if not full and index + 1 < len(requests):
                    continue
                # Longest first: if memory runs out it does so at once, and the remaining time shown is no wishful one.
                waiting.sort(key=lambda pair: (-len(pair[1]["input_ids"]), pair[0]))
                for at in range(0, len(waiting), self.batch_size):
                    batch = waiting[at : at + self.batch_size]
                    outcome = self._generate([row for _, row in batch], max_new_tokens)
                    for (place, _), reply in zip(batch, outcome):
                        replies[place] = reply
                    bar.update(len(batch))
                waiting, held = [], 0
        return [reply if reply is not None else Reply(error="no reply") for reply in replies]

    def _encode(self, request: Request) -> dict[str, torch.Tensor] | Reply:
        started = time.perf_counter()
        try:
            messages = request.messages() if callable(request.messages) else request.messages
            row = self.processor.encode(messages, add_generation_prompt=True, sample_id=request.id)
            return {key: value for key, value in row.items() if key != "labels"}
        except Exception as error:  # whatever a user's file does to a reader must cost one sample, not the run
            return self._failed(request.id, error)
        finally:
            self.spent["encode_seconds"] += time.perf_counter() - started

    def _generate(self, rows: list[dict[str, torch.Tensor]], max_new_tokens: int) -> list[Reply]:
        """Replies of one batch. A failing batch is halved until the sample at fault stands alone."""
        started = time.perf_counter()
        try:
            batch = self.processor.collate(rows, padding_side="left")
            batch = {k: v.to(self.model.device) if torch.is_tensor(v) else v for k, v in batch.items()}
            width = batch["input_ids"].shape[1]
            with torch.no_grad():  # not inference_mode: RADIO keeps its position tables only outside it
                output = self.model.generate(
                    **batch,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    num_beams=1,
                    eos_token_id=self.stop_ids,
                    pad_token_id=self.pad_id,
                )
        except Exception as error:
            if len(rows) == 1:
                return [self._failed("?", error, rows[0])]
            logger.warning("a batch of %d failed (%s: %s); trying its halves", len(rows), type(error).__name__, error)
            half = len(rows) // 2
            return self._generate(rows[:half], max_new_tokens) + self._generate(rows[half:], max_new_tokens)
        replies = [self._reply(row, ids.tolist()) for row, ids in zip(rows, output[:, width:])]
        self.spent["requests"] += len(rows)
        self.spent["prompt_tokens"] += sum(reply.prompt_tokens for reply in replies)
        self.spent["new_tokens"] += sum(reply.tokens for reply in replies)
        self.spent["generate_seconds"] += time.perf_counter() - started
        return replies

    def _reply(self, row: dict[str, torch.Tensor], new_ids: list[int]) -> Reply:
        stop = next((place for place, token in enumerate(new_ids) if token in self.stop_ids), None)
        answer_ids = new_ids if stop is None else new_ids[:stop]
        # Special tokens are kept: a model that writes a control token in its answer did not give the answer.
        text = self.processor.tokenizer.decode(answer_ids, skip_special_tokens=False).strip()
        return Reply(text, self._prompt(row), len(row["input_ids"]), len(answer_ids), stopped=stop is not None)

    def _prompt(self, row: dict[str, torch.Tensor]) -> str:
        return collapse_repeats(self.processor.tokenizer.decode(row["input_ids"].tolist(), skip_special_tokens=False))

    def _failed(self, sample_id: str, error: Exception, row: dict[str, torch.Tensor] | None = None) -> Reply:
        logger.debug("sample %s failed: %s: %s", sample_id, type(error).__name__, error)
        return Reply(prompt=self._prompt(row) if row else "", error=f"{type(error).__name__}: {error}")


def stop_token_ids(model: Any, processor: Any) -> list[int]:
    """Ids that end an answer: those of the generation config, of the chat template, and the tokenizer's own end token.

    Raises ValueError when nobody names one: every answer would run to its limit.
    """
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = list(configured) if isinstance(configured, (list, tuple)) else [configured]
    found += [*getattr(processor, "stop_token_ids", []), processor.tokenizer.eos_token_id]
    stop = list(dict.fromkeys(int(token) for token in found if token is not None))
    if not stop:
        raise ValueError("neither generation config, chat template nor tokenizer names an end-of-turn token")
    return stop


def collapse_repeats(text: str) -> str:
    """`<image><image><image>` → `<image>×3`: what a results file needs to know of 256 placeholders."""
    return re.sub(r"(<[^<>\s]+>)\1+", lambda m: f"{m[1]}×{len(m[0]) // len(m[1])}", text)
