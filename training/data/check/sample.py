"""One record -> what is wrong with it and what it holds, small enough to be sent between processes a million times."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from training.data.check.language import guess_language
from training.data.check.media import MediaCheck, Picture, medium_key
from training.data.dataset import encode_sample, measure_sample, no_answer
from training.data.sample import Sample
from training.data.sources import Source
from vlm.errors import SampleError


@dataclass(slots=True)
class Finding:
    """One record. `errors`: (id, reason, message, file); everything else describes a record that could be read.

    Attributes:
        id_key, content_key: 63 bits of the id, and of the whole conversation with the names of its media; 0: unread.
        tokens, trained: None without a processor, or when it could not be encoded.
        characters, answer_characters: Of all text, and of the assistant's.
        pictures: Of every image item and volume: (its number among the media items, Picture).
    """

    errors: list[tuple[str | None, str, str, str | None]] = field(default_factory=list)
    id_key: int = 0
    content_key: int = 0
    images: int = 0
    videos: int = 0
    documents: int = 0
    volumes: int = 0
    turns: int = 0
    tokens: int | None = None
    trained: int | None = None
    characters: int = 0
    answer_characters: int = 0
    language: str = ""
    pictures: list[tuple[int, Picture]] = field(default_factory=list)

    @property
    def is_readable(self) -> bool:
        return self.id_key != 0


class SampleCheck:
    """`check(i)` -> the Finding of record i of a source. Travels to worker processes.

    Args:
        processor: Counts tokens and labels as training does; None: schema and media only.
        max_length: Longest allowed sample in tokens.
        level, fingerprints: As for MediaCheck.
        options: For `processor.encode`.
    """

    def __init__(
        self,
        source: Source,
        processor: Any = None,
        max_length: int | None = None,
        level: str = "headers",
        fingerprints: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.source, self.processor, self.max_length = source, processor, max_length
        self.media, self.options = MediaCheck(level, fingerprints), options or {}

    def __call__(self, index: int) -> Finding:
        try:
            sample = self.source[index]
        except SampleError as error:
            return Finding([_row(error)])
        if sample.problem is not None:
            return Finding([_row(sample.problem, sample.id)])
        finding = Finding(id_key=key_of(sample.id), turns=len(sample.messages))
        errors = self._media(sample, finding)
        self._text(sample, finding)
        if not errors and not sample.has_answer():
            errors.append(no_answer(sample))
        if not errors and self.processor is not None:
            try:
                self._tokens(sample, finding)
            except SampleError as error:
                errors.append(error)
        finding.errors = [_row(error, sample.id) for error in errors]
        return finding

    def _media(self, sample: Sample, finding: Finding) -> list[SampleError]:
        errors, values = [], []
        for number, item in enumerate(sample.media_items()):
            kind = item["type"]
            setattr(finding, f"{kind}s", getattr(finding, f"{kind}s") + 1)
            try:
                value = sample.resolve(item[kind], kind)
                pictures = self.media(item, value)
            except SampleError as error:
                errors.append(error)
                values.append(repr(item[kind]))
                continue
            finding.pictures += [(number, picture) for picture in pictures]
            values.append(medium_key(item, value) or [picture.key for picture in pictures] or number)
        calls = [message.get("tool_calls") for message in sample.messages]
        finding.content_key = key_of(json.dumps([_texts(sample), calls, values], default=repr))
        return errors

    def _text(self, sample: Sample, finding: Finding) -> None:
        texts = _texts(sample)
        words = "\n".join(text for _, text in texts)
        finding.characters = len(words)
        finding.answer_characters = sum(len(text) for role, text in texts if role == "assistant")
        finding.language = guess_language(words)

    def _tokens(self, sample: Sample, finding: Finding) -> None:
        encode = encode_sample if self.media.level == "full" else measure_sample
        try:
            encoded = encode(sample, self.processor, self.max_length, **self.options)
        except SampleError as error:
            if error.reason == "too_long":  # how long tells what max_length should be
                self._count(measure_sample(sample, self.processor, None, **self.options), finding)
            raise
        self._count(encoded, finding)

    @staticmethod
    def _count(encoded: dict[str, Any], finding: Finding) -> None:
        finding.tokens = len(encoded["input_ids"])
        finding.trained = int((encoded["labels"] != -100).sum())


def key_of(text: str) -> int:
    """63 bits of a text, never 0."""
    data = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(data, "little") >> 1) or 1


def _texts(sample: Sample) -> list[tuple[str, str]]:
    return [(m["role"], item["text"]) for m in sample.messages for item in m["content"] if item["type"] == "text"]


def _row(error: SampleError, sample_id: str | None = None) -> tuple[str | None, str, str, str | None]:
    return sample_id or error.sample_id, error.reason, error.message, error.path
