"""How probable a model finds the gold answers, without generating: the measure of what a text corpus taught it.

A base language model, or one whose chat format is not learned yet, cannot be asked; it can be shown text with its
answer. The score of a sample is the geometric mean probability of its answer's tokens, exp(-loss): between 0 and 1, and
finer than right or wrong.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from tqdm.auto import tqdm

from eval.data import Dataset, Sample
from eval.generation import Generator, Reply
from eval.tasks.base import Options, Row, Task

logger = logging.getLogger(__name__)


class LikelihoodTask(Task):
    """Any dataset with answers; with pictures too."""

    name = "likelihood"
    metrics = ("answer_probability",)
    max_new_tokens = 0

    def __init__(self, dataset: Dataset | None = None) -> None:
        """Raises ValueError without a dataset."""
        if dataset is None:
            raise ValueError("the task 'likelihood' needs data: use --likelihood FOLDER or FILE")
        self.key = f"{dataset.name}-likelihood"

    def run(self, samples: Sequence[Sample], generator: Generator, options: Options) -> list[Row]:
        samples = self.prepare(samples)[: options.limit]
        bar = tqdm(samples, desc=self.key, unit="q", disable=not generator.progress, mininterval=0.5)
        return [self.weighed(sample, generator) for sample in bar]

    def weighed(self, sample: Sample, generator: Generator) -> Row:
        """The row of one sample: what it scored, or why it could not be scored."""
        started = time.perf_counter()
        probability, reply = 0.0, Reply(error=sample.problem)
        if not sample.problem and sample.answers:
            try:
                probability, tokens = answer_probability(generator.model, generator.processor, answered(sample))
                reply = Reply(tokens=tokens, stopped=True)
            except Exception as error:  # whatever a user's file does to a reader must cost one sample, not the run
                logger.debug("sample %s failed", sample.id, exc_info=True)
                reply = Reply(error=f"{type(error).__name__}: {error}")
        generator.spent["generate_seconds"] += time.perf_counter() - started
        generator.spent["requests"] += 1
        error = reply.error or (None if sample.answers else "no gold answer in the record")
        return {
            "id": sample.id,
            "task": self.key,
            "kind": sample.kind,
            "group": sample.group,
            "control": None,
            "question": sample.question,
            "media": sample.media,
            "prompt": "",
            "prompt_tokens": 0,
            "output": "",
            "stopped": reply.stopped,
            "answers": sample.answers,
            "score": probability,
            "scores": {"answer_probability": probability},
            "error": error,
            "answer_tokens": reply.tokens,
        }


def answered(sample: Sample) -> list[dict[str, Any]]:
    """The prompt with the gold answer as the last turn."""
    if sample.messages[-1]["role"] == "assistant":
        return sample.messages
    return [*sample.messages, {"role": "assistant", "content": [{"type": "text", "text": sample.answers[0]}]}]


@torch.no_grad()  # not inference_mode: RADIO keeps its position tables only outside it
def answer_probability(model: Any, processor: Any, messages: list[dict[str, Any]]) -> tuple[float, int]:
    """(exp(-mean loss) over the tokens of the last answer, their number).

    Raises ValueError when the model's loss is not a number.
    """
    whole = processor.encode(messages)
    prompt = processor.encode(messages[:-1], add_generation_prompt=True)
    labels = whole["labels"].clone()
    labels[: len(prompt["input_ids"])] = -100  # earlier answers are part of the question
    tokens = int((labels != -100).sum())
    batch = processor.collate([{**whole, "labels": labels}])
    batch = {key: value.to(model.device) if torch.is_tensor(value) else value for key, value in batch.items()}
    loss = float(model(**batch).loss)
    if not math.isfinite(loss) or not tokens:
        raise ValueError(f"a loss of {loss} over {tokens} tokens of an answer")
    return math.exp(-loss), tokens
