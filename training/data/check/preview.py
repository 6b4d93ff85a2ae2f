"""Samples as the model will see them: the text that is learned, the text that is masked, and the media between them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.data.check.media import shown_slices
from training.data.check.report import Report
from training.data.check.run import Job
from training.data.dataset import measure_sample
from training.data.sample import Sample
from vlm.errors import SampleError
from vlm.media.sizes import image_size

KINDS = {1: "image", 2: "video"}


@dataclass(frozen=True)
class Segment:
    """A stretch of a prompt. `medium`: "image" or "video" where `text` stands for placeholders."""

    text: str
    learned: bool
    medium: str = ""


@dataclass
class Preview:
    """One sample. Without a processor the roles are named and `tokens` is None."""

    source: str
    where: str
    id: str
    segments: list[Segment] = field(default_factory=list)
    tokens: int | None = None
    trained: int | None = None
    images: list[Any] = field(default_factory=list)


def previews(report: Report, jobs: Sequence[Job], processor: Any, count: int) -> list[Preview]:
    """`count` good samples of each source, evenly spread over it."""
    found = []
    for source, tally, job in zip(report.opened, report.tallies, jobs):
        good = np.flatnonzero(np.frombuffer(bytes(tally.bad), np.uint8) == 0)
        if source is None or not len(good):
            continue
        for row in good[np.unique(np.linspace(0, len(good) - 1, min(count, len(good))).astype(int))].tolist():
            try:
                sample = source[row]
                one = Preview(source.name, source.where(row), sample.id)
                one.images = _pictures(sample, processor)
                if processor is None:
                    one.segments = _plain(sample)
                else:
                    encoded = measure_sample(sample, processor, None, **job.options)
                    one.segments = segments(encoded, processor, _sizes(one.images))
                    one.tokens = len(encoded["input_ids"])
                    one.trained = int((encoded["labels"] != -100).sum())
            except SampleError:  # found by nobody before: its media changed, or only its header was read
                continue
            found.append(one)
    return found


def _pictures(sample: Sample, processor: Any) -> list[Any]:
    """What readers of pictures open: the images, and the slices that its volumes show."""
    found = []
    for item in sample.media_items():
        kind = item["type"]
        if kind == "image":
            found.append(sample.resolve(item[kind]))
        elif kind == "volume":
            found += shown_slices({**item, kind: sample.resolve(item[kind], kind)}, processor)
    return found


def segments(encoded: dict[str, Any], processor: Any, sizes: Sequence[tuple[int, int]] = ()) -> list[Segment]:
    """The stretches of an encoded sample; a run of placeholders is told in words.

    `sizes`: (height, width) of its images in order; used where each has one run of placeholders.
    """
    ids, types = encoded["input_ids"].tolist(), encoded["mm_token_type_ids"].tolist()
    learned = (encoded["labels"] != -100).tolist()
    kinds = list(zip(types, learned))
    starts = [i for i in range(len(ids)) if i == 0 or kinds[i] != kinds[i - 1]]
    known = list(sizes) if sum(KINDS.get(types[start]) == "image" for start in starts) == len(sizes) else []
    found = []
    for start, end in zip(starts, [*starts[1:], len(ids)]):
        if kind := KINDS.get(types[start]):
            height, width = known.pop(0) if kind == "image" and known else (0, 0)
            size = f" {width}×{height}" if width else ""
            found.append(Segment(f"[{kind}{size} → {end - start} tokens]", False, kind))
        else:
            text = processor.tokenizer.decode(ids[start:end], skip_special_tokens=False)
            found.append(Segment(text, learned[start]))
    return found


def _plain(sample: Sample) -> list[Segment]:
    """Without a processor: the turns in plain words, the assistant's as what is learned."""
    found = []
    for message in sample.messages:
        found.append(Segment(f"{message['role']}: ", False))
        for item in message["content"]:
            if item["type"] == "text":
                found.append(Segment(item["text"], message["role"] == "assistant"))
            else:
                found.append(Segment(f"[{item['type']}]", False, item["type"]))
        found.append(Segment("\n", False))
    return found


def _sizes(images: Sequence[Any]) -> list[tuple[int, int]]:
    try:
        return [image_size(image) for image in images]
    except SampleError:
        return []
