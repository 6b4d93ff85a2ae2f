"""How long a sample will be, without encoding it: to sort samples of similar length together.

A wrong guess costs some padding, never correctness. It depends on the data files and the processor alone, so all ranks
and a resumed run guess alike.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from training.data.sample import Sample
from vlm.errors import SampleError

CHARS_PER_TOKEN = 3.5
TOKENS_PER_MEDIUM = {"image": 256, "video": 1024, "document": 1024, "volume": 2048}
TOKENS_PER_LABEL = 6  # "Page 1:" before the page of a document, "Slice 12 of 40:" before a slice
TOKENS_PER_TURN = 4
LOOK_CLOSER_UP_TO = 5_000  # samples; tokenizing and opening so many picture headers takes some seconds


def estimated_lengths(samples, processor: Any) -> np.ndarray:
    """(N,) estimated tokens; 0 for records that cannot be read. Of many samples no medium is opened or read."""
    few = len(samples) <= LOOK_CLOSER_UP_TO
    sizer = Sizer(processor if few else None)
    seen = samples.outlines() if not few and hasattr(samples, "outlines") else _read(samples)
    lengths = np.zeros(len(samples), dtype=np.int64)
    for index, sample in enumerate(seen):
        try:
            lengths[index] = 0 if sample is None else sizer(sample)
        except SampleError:
            continue
    return lengths


def _read(samples: Sequence[Sample]) -> Iterator[Sample | None]:
    """The samples as they are, None for those that cannot be read."""
    for index in range(len(samples)):
        try:
            yield samples[index]
        except SampleError:
            yield None


class Sizer:
    """Sample -> estimated tokens: from the real tokenizer and the pictures' headers when there is a processor."""

    def __init__(self, processor: Any):
        self.tokenizer = getattr(processor, "tokenizer", None)
        self.image_tokens = getattr(processor, "num_image_tokens", None)
        self._known: dict[tuple, int] = {}

    def __call__(self, sample: Sample) -> int:
        texts = [item["text"] for message in sample.messages for item in message["content"] if item["type"] == "text"]
        media = sum(self._medium(sample, item) for item in sample.media_items())
        return self._text("\n".join(texts)) + media + TOKENS_PER_TURN * len(sample.messages)

    def _text(self, text: str) -> int:
        if self.tokenizer is None:
            return int(len(text) / CHARS_PER_TOKEN)
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    def _medium(self, sample: Sample, item: dict[str, Any]) -> int:
        kind = item["type"]
        if kind == "video" or self.image_tokens is None:
            return TOKENS_PER_MEDIUM[kind]
        source = sample.resolve(item[kind], kind)
        if not isinstance(source, (str, bytes, dict)):
            return self.image_tokens(source.height, source.width)
        options = {name: value for name, value in item.items() if name not in ("type", kind)}
        key = (source if isinstance(source, str) else hash(repr(source)), kind, repr(options))
        if key not in self._known:
            try:
                self._known[key] = self._opened(source, item)
            except Exception:  # DICOM, or broken: whoever opens it for real will say so
                self._known[key] = TOKENS_PER_MEDIUM[kind]
        return self._known[key]

    def _opened(self, source: str | bytes | dict, item: dict[str, Any]) -> int:
        if item["type"] == "document":
            return self._pages(source, item)
        return self._slices(source, item) if item["type"] == "volume" else self._picture(source)

    def _slices(self, source: str | bytes | dict, item: dict[str, Any]) -> int:
        from vlm.media.volume_items import item_sizes

        sizes = item_sizes({**item, "volume": source}, self.image_tokens)
        return sum(self.image_tokens(*size) + TOKENS_PER_LABEL for size in sizes)

    def _picture(self, path: str) -> int:
        with Image.open(path) as image:  # reads the header only
            return self.image_tokens(image.height, image.width)

    def _pages(self, source: str | bytes, item: dict[str, Any]) -> int:
        from vlm.media import open_document

        options = {key: item[key] for key in ("pages", "dpi") if key in item}
        return sum(self.image_tokens(*page.size()) + TOKENS_PER_LABEL for page in open_document(source, **options))
