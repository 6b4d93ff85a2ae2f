"""What a data source is, and how one is found: a file format per file of this folder, told apart by content.

A new format is one new file with a class under `@register_source("name")`; nothing else changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from training.data.records import parse_record
from training.data.sample import Sample
from training.data.turns import rename_columns, with_reasoning, with_system
from vlm.errors import RadioVLMError, SampleError


class DataError(RadioVLMError):
    """A whole source cannot be read (a single bad record is a SampleError, raised when it is asked for)."""


class Source(ABC):
    """A sequence of samples. `len` is known at once; `source[i]` reads and may raise SampleError."""

    format: ClassVar[str]

    def __init__(
        self,
        path: Path | str,
        name: str | None = None,
        media_root: Path | None = None,
        split: str | None = None,
        subset: str | None = None,
        columns: dict[str, str] | None = None,
        system: str | None = None,
        reasoning: str | None = None,
    ):
        """path: file or folder (a pattern or an `hf://` name stays a string); the others as in
        `training.recipe.Source`; media_root: default: the data file's folder.
        """
        self.path = path
        self.name = name or self.default_name(path)
        self.media_root = media_root
        self.split, self.subset = split, subset
        self.columns, self.system, self.reasoning = columns, system, reasoning

    @classmethod
    @abstractmethod
    def claims(cls, path: Path | str) -> bool:
        """Whether this class reads `path`, judged by what is inside; must not raise on foreign or missing files."""

    @staticmethod
    def default_name(path: Path | str) -> str:
        path = Path(path)
        return path.name if path.is_dir() else path.parent.name + "/" + path.name

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def outline(self, index: int) -> Sample:
        """`self[index]` as far as its length can be guessed from: media held in the data file may be empty bytes."""
        return self[index]

    def outlines(self, count: int | None = None) -> Iterator[Sample | None]:
        """Outlines of the first `count` samples (default: all) in order, None for those that cannot be read."""
        for index in range(len(self) if count is None else count):
            try:
                yield self.outline(index)
            except SampleError:
                yield None

    def where(self, index: int) -> str:
        """The place of a record for error messages, e.g. "data/records.jsonl:12"; never raises."""
        return f"{self.path}[{index}]"

    def renamed(self, record: Any) -> Any:
        """A decoded record with its keys called as we call them."""
        return rename_columns(record, self.columns) if self.columns else record

    def parse(self, record: Any, default_id: str, origin: str, base_dir: Path | None) -> Sample:
        """A `renamed` record as this source's options want it. Raises SampleError naming `origin`."""
        sample = parse_record(record, default_id=default_id, source=self.name, base_dir=base_dir, origin=origin)
        if self.system:
            sample = with_system(sample, self.system)
        return with_reasoning(sample, self.reasoning) if self.reasoning else sample

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in {self.path}")
        return index % len(self)


SOURCES: dict[str, type[Source]] = {}
READING_OPTIONS = {"name", "media_root", "split", "subset", "columns", "system", "reasoning"}
OPTIONS = {"path", "format", "streaming"} | READING_OPTIONS
MIXTURE_OPTIONS = {"weight", "repeats", "limit", "cap"}  # read by training.data.mixture and stream_feed
HUB = "hf://"


def register_source(name: str):
    """Class decorator: makes `format: name` known and adds the class to the detection."""

    def register(cls: type[Source]) -> type[Source]:
        if name in SOURCES:
            raise ValueError(f"data source {name!r} is registered twice")
        cls.format = name
        SOURCES[name] = cls
        return cls

    return register


def detect_format(path: Path | str) -> type[Source]:
    """The one source class that claims `path`. Raises DataError when none or several do."""
    found = [cls for cls in SOURCES.values() if cls.claims(path)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(cls.format for cls in found)
    if found:
        raise DataError(f"{path} could be any of {names}: say which with `format:`")
    _check_exists(path)
    path = Path(path)
    inside = f"; it holds {', '.join(sorted(p.name for p in path.iterdir())[:8]) or 'nothing'}" if path.is_dir() else ""
    raise DataError(f"{path} is none of the known data formats ({', '.join(sorted(SOURCES))}){inside}")


def _check_exists(path: Path | str) -> None:
    if not Path(path).exists():
        raise DataError(f"data {str(path)!r} does not exist")


def under_root(spec: str | Path | dict[str, Any], root: str | Path | None) -> dict[str, Any]:
    """The spec as a dict whose relative paths start from `root`; names on the hub stay as they are."""
    options = dict(spec) if isinstance(spec, dict) else {"path": spec}
    for key in ("path", "media_root"):
        if root is not None and options.get(key) and not str(options[key]).startswith(HUB):
            options[key] = Path(root) / Path(options[key]).expanduser()
    return options


def source_class(spec: str | Path | dict[str, Any]) -> tuple[type[Source], Path | str, dict[str, Any]]:
    """The class that reads a spec, the path it is given, and its reading options. Raises DataError."""
    options = dict(spec) if isinstance(spec, dict) else {"path": spec}
    unknown = set(options) - OPTIONS - MIXTURE_OPTIONS
    if unknown or "path" not in options:
        problem = f"unknown key {sorted(unknown)[0]!r} in data source" if unknown else "a data source needs 'path'"
        raise DataError(f"{problem} {options}; known: {', '.join(sorted(OPTIONS | MIXTURE_OPTIONS))}")
    path = options["path"]
    path = path if str(path).startswith(HUB) else Path(path).expanduser()
    name = options.get("format")
    if name is None:
        cls = detect_format(path)
    elif name in SOURCES:
        cls = SOURCES[name]
        if not cls.claims(path):
            _check_exists(path)
    else:
        raise DataError(f"unknown data format {name!r}, known: {', '.join(sorted(SOURCES))}")
    reading = {key: options[key] for key in READING_OPTIONS if options.get(key) is not None}
    if "media_root" in reading:
        reading["media_root"] = Path(reading["media_root"]).expanduser()
    return cls, path, reading


def open_source(spec: str | Path | dict[str, Any]) -> Source:
    """A path, or a dict with the keys of `training.recipe.Source`, -> the source. Of the mixture's keys only `limit` is
    read here, and only for a streamed source: its first `limit` records, held in memory.

    Raises DataError when the source as a whole cannot be read; bad records raise SampleError later, one by one.
    """
    cls, path, reading = source_class(spec)
    if isinstance(spec, dict) and spec.get("streaming"):
        from training.data.streams import StreamHead

        return StreamHead(spec)
    return cls(path, **reading)
