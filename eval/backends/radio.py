"""Our own checkpoints, in this process: the processor's `encode` and `collate`, left padding, greedy `generate`.

Works with any pair that keeps that contract: `processor.encode(messages, add_generation_prompt, sample_id)`,
`processor.collate(rows, padding_side)`, `processor.tokenizer`, `model.generate`.
"""

from __future__ import annotations

import math
import re
import time
from typing import Any

import torch

from eval.backends.base import Backend, Batch, Decoding, Encoded, Messages, Reply
from eval.backends.stopping import FirstToken, TextStop, stop_token_ids, without_padding
from eval.backends.yes_no import Forced, Tokens, YesNo, weigh


class RadioBackend(Backend):
    """A model and its processor."""

    name = "local"

    def __init__(self, model: Any, processor: Any, fingerprint: str | None = None) -> None:
        self.model, self.processor, self.fingerprint = model.eval(), processor, fingerprint
        self.stop_ids = stop_token_ids(model, processor)
        pad = processor.tokenizer.pad_token_id
        self.pad_id = pad if pad is not None else self.stop_ids[0]

    @property
    def on_cpu(self) -> bool:
        return self.model.device.type == "cpu"

    def encode(self, messages: Messages, sample_id: str) -> Encoded:
        row = self.processor.encode(messages, add_generation_prompt=True, sample_id=sample_id)
        row = {key: value for key, value in row.items() if key != "labels"}
        types = row.get("mm_token_type_ids")
        return Encoded(
            data=row,
            length=len(row["input_ids"]),
            nbytes=sum(value.nbytes for value in row.values() if torch.is_tensor(value)),
            media_tokens=int((types > 0).sum()) if types is not None else 0,
        )

    def rendered(self, encoded: Encoded) -> str:
        return collapse_repeats(self.decode(encoded.data["input_ids"].tolist()))

    def generate(self, batch: list[Encoded], decoding: Decoding, **how: Any) -> Batch:
        """`how`: further arguments of the model's `generate`, for callers that sample or stream."""
        inputs = self._inputs(batch)
        width = inputs["input_ids"].shape[1]
        first = FirstToken()
        criteria = [first, TextStop(decoding, self.decode, width)] if decoding.stop else [first]
        started = time.perf_counter()
        with torch.no_grad():  # not inference_mode: RADIO keeps its position tables only outside it
            output = self.model.generate(
                **inputs,
                max_new_tokens=decoding.max_new_tokens,
                eos_token_id=self.stop_ids,
                pad_token_id=self.pad_id,
                stopping_criteria=criteria,
                **({"do_sample": False, "num_beams": 1} | how),
            )
        replies = [self._reply(encoded, ids, decoding) for encoded, ids in zip(batch, output[:, width:].tolist())]
        return Batch(replies, first.at - started if first.at else None)

    def _inputs(self, batch: list[Encoded]) -> dict[str, Any]:
        inputs = self.processor.collate([encoded.data for encoded in batch], padding_side="left")
        return {k: v.to(self.model.device) if torch.is_tensor(v) else v for k, v in inputs.items()}

    def yes_no(self, batch: list[Encoded]) -> list[YesNo]:
        inputs = self._inputs(batch)

        @torch.no_grad()  # not inference_mode, as above
        def write(tokens: Tokens) -> torch.Tensor:
            output = self.model.generate(
                **inputs, **Forced(tokens).how(), do_sample=False, num_beams=1,
                eos_token_id=self.stop_ids, pad_token_id=self.pad_id,
            )  # fmt: skip
            return torch.stack(output.logits, dim=1)

        return weigh(write, self.processor.tokenizer)

    def _reply(self, encoded: Encoded, new_ids: list[int], decoding: Decoding) -> Reply:
        stop = next((place for place, token in enumerate(new_ids) if token in self.stop_ids), None)
        answer_ids = new_ids if stop is None else new_ids[:stop]
        # Special tokens are kept: a model that writes a control token in its answer did not give the answer.
        text, cut = decoding.cut(self.decode(answer_ids))
        answer_ids = without_padding(answer_ids, self.pad_id) if cut else answer_ids
        return Reply(text.strip(), tokens=len(answer_ids), stopped=cut or stop is not None)

    def decode(self, ids: list[int]) -> str:
        return self.processor.tokenizer.decode(ids, skip_special_tokens=False)

    def describe(self) -> dict[str, Any]:
        from eval.results import describe_model

        return {**describe_model(self.model, self.processor), "fingerprint": self.fingerprint}

    @torch.no_grad()  # not inference_mode, as above
    def answer_probability(self, messages: Messages) -> tuple[float, int]:
        whole = self.processor.encode(messages)
        prompt = self.processor.encode(messages[:-1], add_generation_prompt=True)
        labels = whole["labels"].clone()
        labels[: len(prompt["input_ids"])] = -100  # earlier answers are part of the question
        tokens = int((labels != -100).sum())
        batch = self.processor.collate([{**whole, "labels": labels}])
        batch = {key: value.to(self.model.device) if torch.is_tensor(value) else value for key, value in batch.items()}
        loss = float(self.model(**batch).loss)
        if not math.isfinite(loss) or not tokens:
            raise ValueError(f"a loss of {loss} over {tokens} tokens of an answer")
        return math.exp(-loss), tokens


def collapse_repeats(text: str) -> str:
    """`<image><image><image>` → `<image>×3`: what a results file needs to know of 256 placeholders."""
    return re.sub(r"(<[^<>\s]+>)\1+", lambda m: f"{m[1]}×{len(m[0]) // len(m[1])}", text)
