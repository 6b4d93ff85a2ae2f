"""When generation ends: the tokens that end an answer, strings that a task stops at, and a clock at the first token."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from eval.backends.base import Decoding


def stop_token_ids(model: Any, processor: Any) -> list[int]:
    """Ids that end an answer: those of the generation config, of the chat template, and the tokenizer's own end token.

    Raises ValueError when nobody names one: every answer would run to its limit.
    """
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = list(configured) if isinstance(configured, (list, tuple)) else [configured]
    tokenizer = getattr(processor, "tokenizer", processor)  # a text-only model has no other processor
    found += [*getattr(processor, "stop_token_ids", []), tokenizer.eos_token_id]
    stop = list(dict.fromkeys(int(token) for token in found if token is not None))
    if not stop:
        raise ValueError("neither generation config, chat template nor tokenizer names an end-of-turn token")
    return stop


def without_padding(ids: list[int], pad_id: int | None) -> list[int]:
    """The tokens of a row that ended at a stop string; while its neighbours went on, `generate` filled it up."""
    end = len(ids)
    while end and ids[end - 1] == pad_id:
        end -= 1
    return ids[:end]


class FirstToken:
    """A stopping criterion that never stops: it notes when the first new token was there."""

    def __init__(self) -> None:
        self.at: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        if self.at is None:
            if input_ids.is_cuda:
                torch.cuda.synchronize(input_ids.device)  # once a batch: without it the launch would be timed
            self.at = time.perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class TextStop:
    """Ends a row once its answer holds a stop string; `Decoding.cut` takes the string off afterwards."""

    def __init__(self, decoding: Decoding, decode: Callable[[list[int]], str], width: int) -> None:
        self.decoding, self.decode, self.width = decoding, decode, width

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        rows = input_ids[:, self.width :] if input_ids.shape[1] > self.width else input_ids
        done = [self.decoding.cut(self.decode(row.tolist()))[1] for row in rows]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)
