"""The samples whose answers are watched: which they are, what is asked, what the answer should be."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from training.data.sample import Sample
from training.watch.pictures import thumbnails
from vlm.errors import SampleError

logger = logging.getLogger("training")
MOST_TRIED = 200  # samples looked at before giving up


@dataclass
class Question:
    """One watched sample, up to its first answer.

    row: what `processor.encode` made of the prompt; max_new_tokens: room for an answer, from the reference's length.
    """

    id: str
    source: str
    question: str
    reference: str
    row: dict[str, Any] = field(repr=False)
    max_new_tokens: int
    pictures: list[Image.Image] = field(default_factory=list, repr=False)


def choose_questions(pools: dict[str, Any], processor, count: int, max_length: int | None) -> list[Question]:
    """`count` questions, one of each pool in turn; the same on every rank.

    pools: name -> sequence of Samples (what a dataset holds in `.samples`). Unreadable samples are passed over.
    """
    chosen: list[Question] = []
    for tried, sample in enumerate(_in_turn(list(pools.values()))):
        if len(chosen) == count or tried == MOST_TRIED:
            break
        try:
            chosen.append(as_question(sample(), processor, max_length))
        except SampleError as error:
            logger.warning(f"predictions: {error}")
    return chosen


def _in_turn(pools: list) -> Iterator:
    """The first of each pool, the second of each, …, as functions that open the sample."""
    for place in range(max((len(pool) for pool in pools), default=0)):
        for pool in pools:
            if place < len(pool):
                yield lambda pool=pool, place=place: pool[place]


def as_question(sample: Sample, processor, max_length: int | None) -> Question:
    """A sample's turns before its first answer, encoded.

    Raises:
        SampleError: no answer in it, broken media, or too long.
    """
    if getattr(sample, "problem", None) is not None:
        raise sample.problem
    messages = sample.resolved_messages()
    place = next((i for i, message in enumerate(messages) if message["role"] == "assistant"), None)
    if not place:
        raise sample.error("no turn asks for an answer", "no_labels")
    asked, answer = messages[:place], messages[place]
    row = processor.encode(
        asked, add_generation_prompt=True, max_length=max_length, sample_id=sample.id, **sample.template
    )
    reference = _text(answer)
    tokens = len(processor.tokenizer(reference, add_special_tokens=False)["input_ids"])
    return Question(
        id=sample.id,
        source=sample.source,
        question="\n".join(filter(None, (_text(message) for message in asked))),
        reference=reference,
        row={key: value for key, value in row.items() if key != "labels"},
        max_new_tokens=min(max(16, 2 * tokens), 256),
        pictures=thumbnails(asked),
    )


def _text(message: dict) -> str:
    content = message.get("content") or ""
    words = content if isinstance(content, str) else "".join(i["text"] for i in content if i["type"] == "text")
    calls = message.get("tool_calls")
    return words.strip() + (f"\n{calls}" if calls else "")
