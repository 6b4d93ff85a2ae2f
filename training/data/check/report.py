"""The result of a check: a summary of every source, all problems, what repeats; and the JSON file of it."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.data.check.media import shown_slices
from training.data.check.problems import ProblemLog
from training.data.check.repeats import Pair, Place, Repeats
from training.data.check.tally import Tally
from training.data.sources import Source


@dataclass
class SourceReport:
    """One source in figures. Distributions are {"min", "median", "p95", "max", "total"}; None: nothing to count.

    Attributes:
        role: "train" or "eval".
        size: Records there are to check; `samples`: records that were.
        trained_tokens: Tokens with a label.
        max_length: Longest allowed sample in tokens, where one was given.
    """

    path: str
    format: str = ""
    role: str = "train"
    stage: str = ""
    size: int = 0
    samples: int = 0
    bad: int = 0
    images: int = 0
    videos: int = 0
    documents: int = 0
    volumes: int = 0
    text_only: int = 0
    turns: int = 0
    max_length: int | None = None
    tokens: dict[str, int] | None = None
    trained_tokens: int | None = None
    characters: dict[str, int] | None = None
    answer_characters: dict[str, int] | None = None
    image_width: dict[str, int] | None = None
    image_height: dict[str, int] | None = None
    languages: dict[str, int] = field(default_factory=dict)

    def count(self, tally: Tally) -> None:
        """Takes the figures over from a tally."""
        self.samples, self.bad = len(tally), sum(tally.bad)
        for name in ("images", "videos", "documents", "volumes", "text_only", "turns"):
            setattr(self, name, getattr(tally, name))
        for name in ("tokens", "characters", "answer_characters"):
            setattr(self, name, distribution(tally.known(name)))
        self.trained_tokens = int(tally.known("trained").sum()) if self.tokens else None
        self.image_width, self.image_height = distribution(tally.widths), distribution(tally.heights)
        self.languages = dict(tally.languages.most_common())


def distribution(values: Any) -> dict[str, int] | None:
    """Lowest, median, 95th percentile, highest and sum."""
    values = np.asarray(values)
    if not len(values):
        return None
    low, median, high, top = np.percentile(values, [0, 50, 95, 100], method="lower").tolist()
    return {"min": low, "median": median, "p95": high, "max": top, "total": int(values.sum(dtype=np.int64))}


@dataclass
class Report:
    """Everything a check found. `opened` and `tallies` run parallel to `sources` (None for an unreadable source)."""

    level: str = "headers"
    sources: list[SourceReport] = field(default_factory=list)
    problems: ProblemLog = field(default_factory=ProblemLog)
    repeats: Repeats = field(default_factory=Repeats)
    compared_looks: bool = False
    interrupted: bool = False
    opened: list[Source | None] = field(default_factory=list, repr=False)
    tallies: list[Tally] = field(default_factory=list, repr=False)

    @property
    def ok(self) -> bool:
        return not len(self.problems) and not self.interrupted

    def reasons(self) -> dict[str, int]:
        """Number of problems by reason, most frequent first."""
        return dict(self.problems.counts.most_common())

    def bad_share(self, role: str) -> float:
        """Share of the records of all sources of a role that are bad."""
        sources = [one for one in self.sources if one.role == role]
        return sum(one.bad for one in sources) / max(1, sum(one.samples for one in sources))

    @property
    def unreadable(self) -> bool:
        """Whether a whole source could not be opened."""
        return "unreadable_source" in self.problems.counts

    def where(self, place: Place) -> str:
        """file:line of a record."""
        source = self.opened[place.source]
        return "" if source is None else source.where(place.row)

    def medium(self, place: Place) -> Any:
        """The medium of a place as the record names it; None when the record cannot be read again."""
        try:
            sample = self.opened[place.source][place.row]
            return list(sample.media())[place.number][1]
        except (ValueError, IndexError, TypeError):
            return None

    def resolved(self, place: Place) -> Any:
        """The medium of a place as readers open it: an absolute path or bytes. Raises SampleError."""
        sample = self.opened[place.source][place.row]
        kind, reference = list(sample.media())[place.number]
        return sample.resolve(reference, kind)

    def picture(self, place: Place) -> Any:
        """As `resolved`; of a volume the slice in the middle. Raises SampleError."""
        sample = self.opened[place.source][place.row]
        item = list(sample.media_items())[place.number]
        value = self.resolved(place)
        if item["type"] != "volume":
            return value
        shown = shown_slices({**item, "volume": value})
        return shown[len(shown) // 2]

    def pair(self, pair: Pair) -> dict[str, Any]:
        """A pair in words."""
        found = {"first": self.where(pair.first), "other": self.where(pair.other), "bits": pair.bits}
        if pair.words:
            return found | {"same": "conversation"}
        names = {"same": "picture", "first_file": self.medium(pair.first), "other_file": self.medium(pair.other)}
        return found | {key: name for key, name in names.items() if isinstance(name, str)}

    def write_json(self, path: Path) -> None:
        """The whole report; problems are written one by one, so there may be millions."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # half a surrogate pair, which records and names of files may hold, becomes its JSON escape
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for piece in self._json():
                file.write(piece)

    def _json(self) -> Iterator[str]:
        repeats = self.repeats
        body = {
            "ok": self.ok,
            "interrupted": self.interrupted,
            "decode": self.level,
            "reasons": self.reasons(),
            "sources": [asdict(one) for one in self.sources],
            "duplicates": {
                "compared_by_looks": self.compared_looks,
                "distance": repeats.distance,
                "pictures": repeats.pictures,
                "blank": repeats.blank,
                "groups": repeats.groups,
                "pictures_in_groups": repeats.grouped,
                "examples": [self.pair(pair) for pair in repeats.pairs],
                "repeated_conversations": repeats.conversations,
                "conversation_examples": [self.pair(pair) for pair in repeats.conversation_pairs],
                "eval_samples_seen_in_training": len(repeats.overlap),
            },
        }
        yield json.dumps(body, indent=1, ensure_ascii=False)[:-2] + ',\n "problems": ['
        for number, problem in enumerate(self.problems):
            yield ("," if number else "") + "\n  " + json.dumps(asdict(problem), ensure_ascii=False)
        yield "\n ]\n}\n"
