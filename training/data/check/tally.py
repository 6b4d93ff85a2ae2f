"""What a source leaves behind once it was read: some tens of bytes a record, in flat arrays."""

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from training.data.check.fingerprint import BITS
from training.data.check.sample import Finding

BYTES = BITS // 8
UNKNOWN = -1


@dataclass
class Tally:
    """Arrays over the records of a source in their order, and over their pictures.

    Attributes:
        id_keys, content_keys: As in Finding.
        bad: 1 for a record with a problem.
        tokens, trained, characters: A record each, -1 where not known.
        picture_keys, picture_rows, picture_numbers: Of every image item: its file, its record, its place among the
            media of the record.
        widths, heights: Of every image item, in pixels.
        fingerprints: 32 bytes an image item, all zero where there is none.
    """

    id_keys: array = field(default_factory=lambda: array("Q"))
    content_keys: array = field(default_factory=lambda: array("Q"))
    bad: bytearray = field(default_factory=bytearray)
    tokens: array = field(default_factory=lambda: array("i"))
    trained: array = field(default_factory=lambda: array("i"))
    characters: array = field(default_factory=lambda: array("i"))
    answer_characters: array = field(default_factory=lambda: array("i"))
    picture_keys: array = field(default_factory=lambda: array("Q"))
    picture_rows: array = field(default_factory=lambda: array("I"))
    picture_numbers: array = field(default_factory=lambda: array("H"))
    widths: array = field(default_factory=lambda: array("I"))
    heights: array = field(default_factory=lambda: array("I"))
    fingerprints: bytearray = field(default_factory=bytearray)
    languages: Counter = field(default_factory=Counter)
    images: int = 0
    videos: int = 0
    documents: int = 0
    volumes: int = 0
    text_only: int = 0
    turns: int = 0

    def __len__(self) -> int:
        return len(self.bad)

    def add(self, finding: Finding) -> None:
        """The next record."""
        row = len(self.bad)
        self.bad.append(bool(finding.errors))
        self.id_keys.append(finding.id_key)
        self.content_keys.append(finding.content_key)
        self.tokens.append(UNKNOWN if finding.tokens is None else finding.tokens)
        self.trained.append(UNKNOWN if finding.trained is None else finding.trained)
        self.characters.append(finding.characters if finding.is_readable else UNKNOWN)
        self.answer_characters.append(finding.answer_characters if finding.is_readable else UNKNOWN)
        if not finding.is_readable:
            return
        self.languages[finding.language] += 1
        self.images += finding.images
        self.videos += finding.videos
        self.documents += finding.documents
        self.volumes += finding.volumes
        self.turns += finding.turns
        self.text_only += not any((finding.images, finding.videos, finding.documents, finding.volumes))
        for number, picture in finding.pictures:
            self.picture_keys.append(picture.key)
            self.picture_rows.append(row)
            self.picture_numbers.append(min(number, 65535))
            self.widths.append(picture.width)
            self.heights.append(picture.height)
            self.fingerprints += picture.fingerprint or bytes(BYTES)

    def known(self, name: str) -> np.ndarray:
        """The known values of `tokens`, `trained`, `characters` or `answer_characters`."""
        values = np.asarray(getattr(self, name))
        return values[values != UNKNOWN]

    def fingerprint_rows(self) -> np.ndarray:
        """(pictures, 32) uint8."""
        return np.frombuffer(bytes(self.fingerprints), np.uint8).reshape(-1, BYTES)
