"""A copy of a source without its bad records: JSONL, one record a line, as it was written."""

import json
from collections.abc import Iterator
from pathlib import Path

from training.data.check.report import Report
from training.data.sources.json_records import JsonSource


def write_clean(report: Report, folder: Path) -> Iterator[str]:
    """Writes `folder`/NAME.jsonl for every JSON source that has bad records; yields a line of words about each source.

    The media stay where they are, so the copy is read with the `media_root` that the line names. Of a source with a
    limit the copy holds what lies within it.
    """
    used: set[Path] = set()
    for source, tally, one in zip(report.opened, report.tallies, report.sources):
        if source is None or not one.bad:
            continue
        if one.samples < one.size:
            yield f"{one.path}: not checked to its end, so no clean copy"
            continue
        if not isinstance(source, JsonSource):
            yield f"{one.path}: {one.bad} bad records; clean copies are made of JSON files, not of {one.format}"
            continue
        file = _free_name(folder, source, used)
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("w", encoding="utf-8", errors="backslashreplace") as out:  # as Report.write_json
            for row in range(len(tally)):
                if not tally.bad[row]:
                    out.write(json.dumps(json.loads(source._read(row)), ensure_ascii=False) + "\n")
        of = f"{one.path}" if one.size == len(source) else f"the first {one.size} of {one.path}"
        options = f"{{path: {file}, media_root: {source.base_dir}}}"
        yield f"{file}: {len(tally) - one.bad} good records of {of}; read it with {options}"


def _free_name(folder: Path, source: JsonSource, used: set[Path]) -> Path:
    """A name after the source, not yet taken by another and not the file that is read."""
    stem = source.name.replace("/", "-").strip("-.").removesuffix(".jsonl").removesuffix(".json") or "clean"
    names = (folder / f"{one}.jsonl" for one in (stem, *(f"{stem}-{i}" for i in range(2, 10_000))))
    file = next(file for file in names if file not in used and file.resolve() != source.file.resolve())
    used.add(file)
    return file
