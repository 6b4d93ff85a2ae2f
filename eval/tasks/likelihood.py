"""How probable a model finds the gold answers, without generating: the measure of what a text corpus taught it.

A base language model, or one whose chat format is not learned yet, cannot be asked; it can be shown text with its
answer. The score of a sample is the geometric mean probability of its answer's tokens, exp(-loss): between 0 and 1, and
finer than right or wrong.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from eval.backends.base import Reply
from eval.data import Dataset, Sample
from eval.generation import Generator
from eval.hashing import input_hash
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
        samples = self.prepare(samples, options)
        return generator.share_out(samples, lambda sample: self.weighed(sample, generator), self.key)

    def weighed(self, sample: Sample, generator: Generator) -> Row:
        """The row of one sample: what it scored, or why it could not be scored."""
        started = time.perf_counter()
        key = self.request_key(sample.id, None)
        known = generator.journal.get(key) if generator.journal else None
        probability, reply = (float(known.text), known) if known else (0.0, Reply(error=sample.problem))
        if not known and not sample.problem and sample.answers:
            try:
                probability, tokens = generator.backend.answer_probability(answered(sample))
                seen = input_hash(answered(sample))
                reply = Reply(repr(probability), tokens=tokens, stopped=True, input_hash=seen)
                if generator.journal:
                    generator.journal.add({key: reply})
            except Exception as error:  # whatever a user's file does to a reader must cost one sample, not the run
                logger.debug("sample %s failed", sample.id, exc_info=True)
                reply = Reply(error=f"{type(error).__name__}: {error}")
        took = time.perf_counter() - started
        generator.spent.generate_seconds += took
        generator.spent.requests += 1
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
            "media_tokens": 0,
            "input_hash": reply.input_hash,
            "new_tokens": 0,
            "seconds": round(took, 4),
            "scoring": sample.scoring,
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
