"""Dataset folders with their media, written beside the old ones and moved into place at the end: whole or not at all.

A folder is complete in itself: the pictures that its records name are hard links into the folder of all pictures, so
that each is on the disk once (a copy where the disk knows no links).
"""

import contextlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from training.data.expert_dialogues.pictures import FOLDER, item_files
from training.durable import vouch
from vlm.errors import RadioVLMError

CACHE, UNFINISHED, MARK = ".cache", ".unfinished", "made.json"
NAME = "expert_dialogues_"
RECORDS, HEADER, MIXTURE = "records.jsonl", "dataset.json", "mixture.yaml"


def claim(out: Path, split: str) -> None:
    """Take the folder: a new or empty one, or one that was made here for the same split. Raises `RadioVLMError`."""
    mark = out / CACHE / MARK
    if out.exists() and not out.is_dir():
        raise RadioVLMError(f"--out {out} is a file")
    if mark.is_file():
        made = json.loads(mark.read_text(encoding="utf-8")).get("split")
        if made != split:
            raise RadioVLMError(f"--out {out} holds the split {made}; give the split {split} a folder of its own")
    elif out.is_dir() and any(out.iterdir()):
        raise RadioVLMError(f"--out {out} is not empty and was not made by this command; give another folder")
    mark.parent.mkdir(parents=True, exist_ok=True)
    vouch(mark, json.dumps({"made_by": "radio-vlm make-expert-data", "split": split}) + "\n")
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    for partial in out.rglob("*.partial"):  # of a run that was killed
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink()


def write_parts(
    out: Path, parts: Mapping[str, Iterable[dict[str, Any]]], header: Mapping[str, Any], mixture: str | None
) -> None:
    """Replace what `out` holds by these parts. `header`: of every `dataset.json`, without name and number.

    The part "" is the folder itself (val and test). `mixture`: text of `mixture.yaml`, written last.
    """
    unfinished = out / UNFINISHED
    for part, records in parts.items():
        _write_part(out, unfinished / part, part, records, header)
    for old in _written(out):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for part in parts:
        if part:
            os.replace(unfinished / part, out / part)
        else:
            for name in (RECORDS, HEADER):  # the header last: a folder that has one is whole
                os.replace(unfinished / name, out / name)
    if mixture is not None:
        vouch(out / MIXTURE, mixture)
    shutil.rmtree(unfinished, ignore_errors=True)


def _write_part(
    out: Path, folder: Path, part: str, records: Iterable[dict[str, Any]], header: Mapping[str, Any]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{NAME}{part or header['split']}"
    count, linked = 0, set()
    with open(folder / RECORDS, "w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps({**record, "source": name}, ensure_ascii=False) + "\n")
            count += 1
            if part:
                linked |= {file for item in media_of(record) for file in item_files(item)}
    for media in sorted(linked):
        link(out / media, folder / media)
    said = {"name": name, **header, "n": count}
    (folder / HEADER).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def _written(out: Path) -> list[Path]:
    """What an earlier run wrote into `out`, but for pictures and kept results; the mixture first: it names the rest."""
    parts = [path for path in out.iterdir() if path.is_dir() and path.name not in (CACHE, UNFINISHED, FOLDER)]
    files = [out / name for name in (MIXTURE, HEADER, RECORDS)]
    return [path for path in files if path.is_file()] + [path for path in parts if _is_ours(path / HEADER)]


def _is_ours(header: Path) -> bool:
    try:
        return json.loads(header.read_text(encoding="utf-8"))["name"].startswith(NAME)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def media_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The items of a record that are not text."""
    return [item for message in record["messages"] for item in message["content"] if item["type"] != "text"]


def link(source: Path, target: Path) -> None:
    """The same file or folder of files under another name."""
    if source.is_dir():
        for file in source.rglob("*"):
            if file.is_file():
                link(file, target / file.relative_to(source))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)


def by_part(rows: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """(part, record) pairs -> part -> its records; experts first, in the order of their names."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for part, record in rows:
        found[part].append(record)
    return {part: found[part] for part in sorted(found, key=lambda name: (not name.startswith("expert-"), name))}
