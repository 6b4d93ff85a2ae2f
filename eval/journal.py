"""Replies as they come, one JSON line each, so that a killed evaluation goes on without asking anything twice.

Beside `results.json` there is a folder `results.json.partial` while a run is under way: `header.json` says which run it
is, `rankN.jsonl` holds the replies of one process. Failed samples are not in it: a resumed run tries them again, also
one that is resumed from a finished results file, after an endpoint was away for an hour, say.
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
from eval.results import write_json

logger = logging.getLogger(__name__)
_SHARED = ("prompt", "prompt_tokens", "media_tokens", "stopped", "seconds", "input_hash")  # of a row and a Reply


class ResumeError(ValueError):
    """What lies beside the results file belongs to another run; the message names the difference."""


def reply_key(task: str, control: str | None, turn: int, sample_id: str) -> str:
    """Names one question of a run."""
    return f"{task}/{control or ''}/{turn}/{sample_id}"


def yes_no_key(key: str) -> str:
    """Names the probabilities of yes and no at the prompt of a reply."""
    return f"{key}/yes_no"


def partial_folder(out: str | Path) -> Path:
    """Where the journal of a results file lies."""
    return Path(f"{out}.partial")


class Journal:
    """Remembers replies by key."""

    def __init__(self, out: str | Path, header: dict[str, Any], resume: bool = False, rank: int = 0) -> None:
        """Raises ResumeError where `resume` finds replies of another run, or where `out` is something else."""
        self.folder = partial_folder(out)
        self.known: dict[str, Reply] = {}
        self._rank, self._header = rank, header
        if resume and (self.folder / "header.json").is_file():
            before = json.loads((self.folder / "header.json").read_text(encoding="utf-8"))
            check_same_run(before, header, self.folder)
            # A run that went on with a finished file and was killed has the first half of its answers there.
            self.known = replies_of_same_run(out, header) | read_replies(self.folder)
        elif resume and Path(out).is_file():
            results = finished_run(out)
            check_same_run(results["run"], header, out)
            self.known = replies_of(results)
        self._file: TextIO | None = None

    def start(self) -> None:
        """Makes the folder. To be called by the first process, before the others write."""
        if self.folder.exists() and not self.known:
            self._set_aside()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._header, self.folder / "header.json")

    def _set_aside(self) -> None:
        if not read_replies(self.folder):
            shutil.rmtree(self.folder)
            return
        aside = self.folder.with_name(f"{self.folder.name}-{datetime.now():%Y%m%d-%H%M%S}")
        self.folder.rename(aside)
        logger.warning("an unfinished run lay there; its answers are now in %s (--resume would have gone on)", aside)

    def get(self, key: str) -> Reply | None:
        return self.known.get(key)

    def add(self, replies: dict[str, Reply]) -> None:
        """Appends replies that did not fail, and makes sure that a kill cannot take them."""
        good = {key: reply for key, reply in replies.items() if not reply.error}
        if self._file is None:
            path = self.folder / f"rank{self._rank}.jsonl"
            torn = path.is_file() and not path.read_bytes().endswith(b"\n")
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace")  # half a pair
            self._file.write("\n" if torn else "")
        for key, reply in good.items():
            self._file.write(json.dumps({"key": key, **asdict(reply)}, ensure_ascii=False) + "\n")
        self._file.flush()
        self.known |= good

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def set_aside_results(out: str | Path, header: dict[str, Any]) -> None:
    """Keeps a results file of another run, under a name that says when it was found in the way."""
    try:
        other = finished_run(out)["run"] != header
    except (OSError, ValueError):
        return
    if other:
        aside = Path(f"{out}.before-{datetime.now():%Y%m%d-%H%M%S}")
        Path(out).rename(aside)
        logger.warning("%s held the results of another run; they are now in %s", out, aside)


def remove_journal(out: str | Path) -> None:
    """Its replies are in the results file now."""
    shutil.rmtree(partial_folder(out), ignore_errors=True)


def read_replies(folder: Path) -> dict[str, Reply]:
    """Replies of all processes of a journal; a line that a kill tore is left out."""
    found: dict[str, Reply] = {}
    for path in sorted(folder.glob("rank*.jsonl")):
        # not splitlines(): it also cuts at U+2028 and its like, which JSON keeps as they are
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            key = row.pop("key")
            found[key] = Reply(**row)
    return found


def finished_run(path: str | Path) -> dict[str, Any]:
    """A finished results file. Raises ResumeError for any other file."""
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
        if isinstance(results["samples"], list) and isinstance(results["run"], dict):
            return results
    except (ValueError, KeyError, TypeError):
        pass
    raise ResumeError(f"{path} is not a results file that can be gone on with: choose another --out")


def replies_of(results: dict[str, Any]) -> dict[str, Reply]:
    """What was answered without failure. Conversations in several turns run again: only their last reply is kept."""
    replies: dict[str, Reply] = {}
    for row in results["samples"]:
        if row["error"] or "turns" in row:
            continue
        key = reply_key(row["task"], row["control"], 1, row["id"])
        replies[key] = Reply(
            # of an answer that was weighed, not generated: its probability, as the task's own replies hold it
            text=repr(row["score"]) if "answer_tokens" in row else row["output"],
            tokens=row.get("answer_tokens", row["new_tokens"]),
            **{name: row[name] for name in _SHARED},
        )
        if row.get("p_yes") is not None:
            replies[yes_no_key(key)] = Reply(json.dumps([row["p_yes"], row["yes_no_mass"]]))
    return replies


def replies_of_same_run(out: str | Path, header: dict[str, Any]) -> dict[str, Reply]:
    """What a finished results file answers for the run of `header`; nothing where there is none, or another run's."""
    try:
        results = finished_run(out)
        check_same_run(results["run"], header, out)
    except (OSError, ValueError):
        return {}
    return replies_of(results)


def check_same_run(before: dict[str, Any], now: dict[str, Any], where: str | Path) -> None:
    """Raises ResumeError naming the first thing in which two headers differ. A model may have moved elsewhere."""
    same_weights = now.get("fingerprint") is not None and now["fingerprint"] == before.get("fingerprint")
    for name in dict.fromkeys([*now, *before]):
        if before.get(name) != now.get(name) and not (name == "model" and same_weights):
            what, was, is_now = _difference(name.replace("_", " "), before.get(name), now.get(name))
            raise ResumeError(
                f"{where} is of another run: its {what} is {_short(was)}, now it is {_short(is_now)}. "
                "Choose another --out, or leave --resume away to start anew"
            )


def _difference(name: str, before: Any, now: Any) -> tuple[str, Any, Any]:
    """The innermost place in which two values differ, named, and what stands there."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*now, *before]):
            if before.get(key) != now.get(key):
                return _difference(f"{name} → {key}", before.get(key), now.get(key))
    return name, before, now


def _short(value: Any, most: int = 120) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else text[:most] + "…"
