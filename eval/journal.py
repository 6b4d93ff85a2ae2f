"""Replies as they come, one JSON line each, so that a killed evaluation goes on without asking anything twice.

Beside `results.json` there is a folder `results.json.partial` while a run is under way: `header.json` says which run it
is, `rankN.jsonl` holds the replies of one process. Failed samples are not in it: a resumed run tries them again.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from eval.backends.base import Reply

logger = logging.getLogger(__name__)


class ResumeError(ValueError):
    """What lies beside the results file belongs to another run; the message names the difference."""


def partial_folder(out: str | Path) -> Path:
    """Where the journal of a results file lies."""
    return Path(f"{out}.partial")


class Journal:
    """Remembers replies by key. Use as a context manager; `finish` removes the folder once the results are written."""

    def __init__(self, out: str | Path, header: dict[str, Any], resume: bool = False, rank: int = 0) -> None:
        """Raises ResumeError where `resume` finds a journal with another header."""
        self.folder = partial_folder(out)
        self.known: dict[str, Reply] = {}
        self._rank = rank
        if resume and (self.folder / "header.json").is_file():
            self._check(header, out)
            self.known = read_replies(self.folder)
        self._header = header
        self._file: TextIO | None = None

    def start(self) -> None:
        """Makes the folder. To be called by the first process, before the others write."""
        if self.folder.exists() and not self.known:
            self._set_aside()
        self.folder.mkdir(parents=True, exist_ok=True)
        header = json.dumps(self._header, indent=1, ensure_ascii=False)
        (self.folder / "header.json").write_text(header + "\n", encoding="utf-8")

    def _set_aside(self) -> None:
        if not read_replies(self.folder):
            shutil.rmtree(self.folder)
            return
        aside = self.folder.with_name(f"{self.folder.name}-{datetime.now():%Y%m%d-%H%M%S}")
        self.folder.rename(aside)
        logger.warning("an unfinished run lay there; its answers are now in %s (--resume would have gone on)", aside)

    def _check(self, header: dict[str, Any], out: str | Path) -> None:
        before = json.loads((self.folder / "header.json").read_text(encoding="utf-8"))
        check_same_run(before, header, self.folder, out)

    def get(self, key: str) -> Reply | None:
        return self.known.get(key)

    def add(self, replies: dict[str, Reply]) -> None:
        """Appends replies that did not fail, and makes sure that a kill cannot take them."""
        good = {key: reply for key, reply in replies.items() if not reply.error}
        if self._file is None:
            path = self.folder / f"rank{self._rank}.jsonl"
            torn = path.is_file() and not path.read_bytes().endswith(b"\n")
            self._file = path.open("a", encoding="utf-8")
            self._file.write("\n" if torn else "")
        for key, reply in good.items():
            self._file.write(json.dumps({"key": key, **asdict(reply)}, ensure_ascii=False) + "\n")
        self._file.flush()
        self.known |= good

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def finish(self) -> None:
        """Removes the folder: its replies are in the results file now."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def read_replies(folder: Path) -> dict[str, Reply]:
    """Replies of all processes of a journal; a line that a kill tore is left out."""
    found: dict[str, Reply] = {}
    for path in sorted(folder.glob("rank*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                found[row.pop("key")] = Reply(**row)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
    return found


def check_same_run(before: dict[str, Any], now: dict[str, Any], where: str | Path, out: str | Path) -> None:
    """Raises ResumeError naming the first thing in which two headers differ."""
    for name in dict.fromkeys([*now, *before]):
        if before.get(name) != now.get(name):
            raise ResumeError(
                f"{where} is of another run: its {name.replace('_', ' ')} is {_short(before.get(name))}, "
                f"now it is {_short(now.get(name))}. Choose another --out, or leave --resume away to start anew"
            )


def _short(value: Any, most: int = 120) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else text[:most] + "…"
