"""The list of embedded corpora. A corpus registers its writer with ``@register_corpus("name")``; the writer puts a
dataset folder (records.jsonl, dataset.json, media) on disk, the same format a user's own data has.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

SPLITS = ("train", "val", "test")


class CorpusWriter(Protocol):
    """``write(out, split, seed, n, **options)``: n records (train) or n questions (val, test) below ``out``."""

    def __call__(self, out: Path, split: str, seed: int, n: int, **options) -> None: ...


CORPORA: dict[str, CorpusWriter] = {}


def register_corpus(name: str) -> Callable[[CorpusWriter], CorpusWriter]:
    """Decorator that files a writer under ``name``; a second one of the same name is an error."""

    def decorate(writer: CorpusWriter) -> CorpusWriter:
        if name in CORPORA:
            raise ValueError(f"a corpus named {name!r} is registered already")
        CORPORA[name] = writer
        return writer

    return decorate


def get_corpus(name: str) -> CorpusWriter:
    """The writer called ``name``; an unknown name lists the known ones."""
    known = known_corpora()
    if name not in known:
        raise KeyError(f"unknown corpus {name!r}; known: {', '.join(known)}")
    return CORPORA[name]


def known_corpora() -> list[str]:
    """All names, after importing every module of this folder (a corpus is added by adding a file)."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{package}.{module.name}")
    return sorted(CORPORA)


def check_split(split: str) -> str:
    """Returns ``split`` or raises naming the known ones."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    return split
