"""What a data source is, and how one is found: a file format per file of this folder, told apart by content.

A new format is one new file with a class under `@register_source("name")`; nothing else changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from training.data.sample import Sample
from vlm.errors import RadioVLMError


class DataError(RadioVLMError):
    """A whole source cannot be read (a single bad record is a SampleError, raised when it is asked for)."""


class Source(ABC):
    """A sequence of samples. `len` is known at once; `source[i]` reads and may raise SampleError."""

    format: ClassVar[str]

    def __init__(self, path: Path, name: str | None = None, media_root: Path | None = None, split: str | None = None):
        """path: file or folder; media_root: what media paths are relative to (default: the data file's folder)."""
        self.path = path
        self.name = name or self.default_name(path)
        self.media_root = media_root
        self.split = split

    @classmethod
    @abstractmethod
    def claims(cls, path: Path) -> bool:
        """Whether this class reads `path`, judged by what is inside; must not raise on foreign files."""

    @staticmethod
    def default_name(path: Path) -> str:
        return path.name if path.is_dir() else path.parent.name + "/" + path.name

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def where(self, index: int) -> str:
        """The place of a record for error messages, e.g. "data/records.jsonl:12"; never raises."""
        return f"{self.path}[{index}]"

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in {self.path}")
        return index % len(self)


SOURCES: dict[str, type[Source]] = {}
OPTIONS = {"path", "format", "name", "media_root", "split"}
MIXTURE_OPTIONS = {"weight", "repeats", "limit"}  # read by training.data.mixture


def register_source(name: str):
    """Class decorator: makes `format: name` known and adds the class to the detection."""

    def register(cls: type[Source]) -> type[Source]:
        if name in SOURCES:
            raise ValueError(f"data source {name!r} is registered twice")
        cls.format = name
        SOURCES[name] = cls
        return cls

    return register


def detect_format(path: Path) -> type[Source]:
    """The one source class that claims `path`. Raises DataError when none or several do."""
    if not path.exists():
        raise DataError(f"data {str(path)!r} does not exist")
    found = [cls for cls in SOURCES.values() if cls.claims(path)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(cls.format for cls in found)
    if found:
        raise DataError(f"{path} could be any of {names}: say which with `format:`")
    inside = f"; it holds {', '.join(sorted(p.name for p in path.iterdir())[:8]) or 'nothing'}" if path.is_dir() else ""
    raise DataError(f"{path} is none of the known data formats ({', '.join(sorted(SOURCES))}){inside}")


def under_root(spec: str | Path | dict[str, Any], root: str | Path | None) -> dict[str, Any]:
    """The spec as a dict whose relative paths start from `root`."""
    options = dict(spec) if isinstance(spec, dict) else {"path": spec}
    for key in ("path", "media_root"):
        if root is not None and options.get(key):
            options[key] = Path(root) / Path(options[key]).expanduser()
    return options


def open_source(spec: str | Path | dict[str, Any]) -> Source:
    """A path, or {path, format?, name?, media_root?, split?}, -> the source. Mixture keys are allowed and ignored.

    Raises DataError when the source as a whole cannot be read; bad records raise SampleError later, one by one.
    """
    options = dict(spec) if isinstance(spec, dict) else {"path": spec}
    unknown = set(options) - OPTIONS - MIXTURE_OPTIONS
    if unknown or "path" not in options:
        problem = f"unknown key {sorted(unknown)[0]!r} in data source" if unknown else "a data source needs 'path'"
        raise DataError(f"{problem} {options}; known: {', '.join(sorted(OPTIONS | MIXTURE_OPTIONS))}")
    path = Path(options["path"]).expanduser()
    if "format" in options:
        if options["format"] not in SOURCES:
            raise DataError(f"unknown data format {options['format']!r}, known: {', '.join(sorted(SOURCES))}")
        if not path.exists():
            raise DataError(f"data {str(path)!r} does not exist")
        cls = SOURCES[options["format"]]
    else:
        cls = detect_format(path)
    media_root = options.get("media_root")
    return cls(
        path,
        name=options.get("name"),
        media_root=Path(media_root).expanduser() if media_root else None,
        split=options.get("split"),
    )
