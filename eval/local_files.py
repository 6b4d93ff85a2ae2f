"""Files of a local copy: tables as rows, and the media they name, which must lie in the folder.

A row that cannot be read does not stop an evaluation: it becomes a `BadRow`, which tells its reason to whoever asks it
for a column, and so a sample that is named, counted and scored as wrong.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.sources import unpack


class BadRow(dict):
    """A row without columns: `row["question"]` raises ValueError with the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    def __missing__(self, key: str) -> Any:
        raise ValueError(self.reason)


def json_rows(path: Path, key: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a JSON file that holds a list, or with `key` an object with a list under that name.

    Raises ValueError for a file that is something else.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # also what is no UTF-8 text
        raise ValueError(f"{path}: not JSON: {error}") from error
    if key is not None:
        if not isinstance(table, dict) or key not in table:
            raise ValueError(f"{path}: holds no list {key!r}")
        table = table[key]
    if not isinstance(table, list):
        raise ValueError(f"{path}: should hold a list of records, holds {type(table).__name__}")
    for number, row in enumerate(table):
        yield row if isinstance(row, dict) else BadRow(f"{path.name}[{number}]: not a JSON object")


def jsonl_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file; blank lines are no rows."""
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                yield BadRow(f"{path.name}:{number}: not JSON: {error}")
                continue
            yield row if isinstance(row, dict) else BadRow(f"{path.name}:{number}: not a JSON object")


def csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a CSV file with a header, also gzipped. A row with too few or too many cells is a bad one."""
    with (
        gzip.open(path, "rt", encoding="utf-8-sig", newline="")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8-sig", newline="") as file
    ):
        reader = csv.DictReader(file)
        for row in reader:
            whole = None not in row and None not in row.values()
            yield row if whole else BadRow(f"{path.name}:{reader.line_num}: not as many cells as columns")


def media_file(folders: Sequence[Path], name: str) -> Path:
    """The file `name` in the first of `folders` that has it.

    Raises ValueError where none has it, and for a name that would leave the folder: data must not read the user's disk.
    """
    for folder in folders:
        path = Path(os.path.normpath(folder / name))
        if not path.is_relative_to(os.path.normpath(folder)):
            raise ValueError(f"{name}: the path leaves the data folder {folder}")
        if path.is_file():
            return path
    raise ValueError(f"{name}: no such file in {', '.join(map(str, folders)) or 'the copy: it has no media folder'}")


def media_folders(copy: Path, names: Sequence[str], archive: str, cache: Path) -> list[Path]:
    """Folders that hold the media of a copy: `names` in it, or in its `archive`, which is unpacked below `cache`.

    Raises FileNotFoundError where there is neither.
    """
    found = [copy / name for name in names if (copy / name).is_dir()]
    if not found and (copy / archive).is_file():
        unpacked = unpack(copy / archive, cache)
        found = [*(unpacked / name for name in names if (unpacked / name).is_dir()), unpacked]
    if not found:
        raise FileNotFoundError(f"{copy}: neither {archive} nor a folder {' or '.join(names)}")
    return found
