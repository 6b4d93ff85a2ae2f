"""A copy of a source without its bad records: JSONL, one record a line as it was written."""

import json
from collections.abc import Iterator
from pathlib import Path

from training.data.check.report import Report
from training.data.sources.json_records import JsonSource


def write_clean(report: Report, folder: Path) -> Iterator[str]:
    """Writes `folder`/NAME.jsonl for every JSON source that has bad records; yields a line of words about each source.

    The media stay where they are, so the copy is read with the `media_root` that the line names.
    """
    used: set[str] = set()
    for source, tally, one in zip(report.opened, report.tallies, report.sources):
        if source is None or one.samples < one.size or not one.bad:
            if source is not None and one.samples < one.size:
                yield f"{one.path}: not checked to its end, so no clean copy"
            continue
        if not isinstance(source, JsonSource):
            yield f"{one.path}: {one.bad} bad records; clean copies are made of JSON files, not of {one.format}"
            continue
        stem = source.name.replace("/", "-").removesuffix(".jsonl").removesuffix(".json")
        name = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, 10_000))) if n not in used)
        used.add(name)
        file = folder / f"{name}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("w", encoding="utf-8") as out:
            for row in range(len(tally)):
                if not tally.bad[row]:
                    out.write(json.dumps(json.loads(source._read(row)), ensure_ascii=False) + "\n")
        kept = len(tally) - one.bad
        yield f"{file}: {kept} good records of {one.path}; read it with {{path: {file}, media_root: {source.base_dir}}}"
