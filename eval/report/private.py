"""Takes patients out of results before a page is made of them: what DICOM headers state is looked for in every text.

An expert's words, a model's answer, an id, a folder may name a patient. The files themselves say who that is: their
headers are read, and names, numbers, dates and UIDs are replaced by `[removed]`. Where a file is gone, or has no header
(PNG), only absolute paths are taken out of the words of its question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.report.notice import medical_tasks
from eval.report.row_files import files_of
from eval.results_file import Result, Row

KEPT = ("media", "group", "expert_file", "shown", "file", "input_hash", "scores", "kind", "kinds", "task", "control")
"""Fields of a row that a page never prints, needs to find files by, or sorts by."""
Headers = Mapping[str, Sequence[str]]
LEAST = 4  # characters of what is looked for inside words; shorter names must stand alone


class Patients:
    """Identifiers of some files, and how they are taken out of a text."""

    def __init__(self, identifiers: Iterable[str]) -> None:
        """`identifiers` as headers have them, see `vlm.experts.image_facts`."""
        self.identifiers = tuple(dict.fromkeys(identifiers))
        parts = {part for one in self.identifiers for part in (one, *(one.split("^") if "^" in one else ()))}
        squeezed = {text for part in parts if len(text := _squeezed(part)) >= 3}
        self._parts = sorted(squeezed, key=lambda text: (-len(text), text))

    def prose(self, text: str, paths: bool = True) -> str:
        """A sentence without identifiers, and without absolute paths if `paths`."""
        from vlm.experts.private_text import PATHS, without_identifiers

        kept: list[str] = []
        if not paths:  # stood aside, so that they are seen by `path` alone
            text = PATHS.sub(lambda found: kept.append(found[0]) or f"\0{len(kept) - 1}\0", text)
        text = without_identifiers(text, None, self.identifiers)
        return re.sub(r"\0(\d+)\0", lambda found: kept[int(found[1])], text)

    def path(self, text: str) -> str:
        """A path, or an id, without identifiers: in any case, with any or no separators between their characters."""
        from vlm.experts.private_text import REMOVED

        hay = _squeezed(text)
        for part in self._parts:
            if part in hay:
                form = r"[\W_]*".join(map(re.escape, part))
                form = form if len(part) >= LEAST else rf"(?<![A-Za-z0-9]){form}(?![A-Za-z0-9])"
                text = re.sub(form, REMOVED, text, flags=re.IGNORECASE)
                hay = _squeezed(text.replace(REMOVED, "/"))
        return text

    def words(self, text: str) -> str:
        """Text that may hold paths: a command, a setting."""
        if not self.identifiers:
            return text
        text = re.sub(r"\S*[\\/]\S*", lambda found: self.path(found[0]), text)
        return self.prose(text, paths=False)

    def everywhere(self, value: Any) -> Any:
        """`value` (of JSON) with `words` for every text in it."""
        if isinstance(value, str):
            return self.words(value)
        if isinstance(value, Mapping):
            return {key: self.everywhere(one) for key, one in value.items()}
        return [self.everywhere(one) for one in value] if isinstance(value, (list, tuple)) else value


def everyone(results: Sequence[Result]) -> Patients:
    """Whoever is in the files of the medical tasks."""
    return _everyone(read_headers(file for row in _medical_rows(results) for file in files_of(row)))


def without_patients(results: Sequence[Result]) -> list[Result]:
    """The results as a page may show them. Files without a medical task come back as they are."""
    medical = set(medical_tasks(results))
    if not medical:
        return list(results)
    rows = _medical_rows(results)
    headers = read_headers(file for row in rows for file in files_of(row))
    all_of_them = _everyone(headers)
    names = _names(rows, headers)
    cleaned = []
    for result in results:
        samples = [_clean(row, names, headers) if row["task"] in medical else row for row in result.data["samples"]]
        data = {**all_of_them.everywhere({k: v for k, v in result.data.items() if k != "samples"}), "samples": samples}
        label, path = all_of_them.path(result.label), Path(all_of_them.path(str(result.path)))
        cleaned.append(replace(result, data=data, label=label, path=path))
    return cleaned


def _medical_rows(results: Sequence[Result]) -> list[Row]:
    medical = medical_tasks(results)
    return [row for result in results for key in medical for row in result.rows(key)]


def _everyone(headers: Headers) -> Patients:
    return Patients(name for names in headers.values() for name in names)


def read_headers(files: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The identifiers in the header of each file; none where there is no header, or no file any more."""
    from vlm.experts.image_facts import image_facts

    headers: dict[str, tuple[str, ...]] = {}
    for file in files:
        if file not in headers:
            try:
                headers[file] = image_facts(file).identifiers
            except ImportError:  # no pydicom: then no DICOM was read here either
                headers[file] = ()
    return headers


def _patients(row: Row, headers: Headers) -> Patients:
    return Patients(name for file in files_of(row) for name in headers[file])


def _names(rows: Sequence[Row], headers: Headers) -> dict[str, str]:
    """What to call each row: its id, or `[removed] N` where that names a patient. The same for equal ids."""
    names: dict[str, str] = {}
    for row in rows:
        if row["id"] not in names:
            names[row["id"]] = _patients(row, headers).path(row["id"])
    seen: dict[str, int] = {}
    for old in sorted(name for name in names if names[name] != name):
        seen[names[old]] = seen.get(names[old], 0) + 1
        names[old] += f" {seen[names[old]]}"
    return names


def _clean(row: Row, names: Mapping[str, str], headers: Headers) -> Row:
    patients = _patients(row, headers)

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return patients.prose(value)
        if isinstance(value, Mapping):
            return {key: one if key in KEPT else clean(one) for key, one in value.items()}
        return [clean(one) for one in value] if isinstance(value, (list, tuple)) else value

    cleaned = {key: value if key in KEPT else clean(value) for key, value in row.items() if key not in ("id", "donor")}
    found = {key: names.get(row[key], "another sample") for key in ("id", "donor") if key in row}
    return {**found, **cleaned}


def _squeezed(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())
