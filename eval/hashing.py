"""Fingerprints: of what a sample showed the model, and of the model itself.

Both make results comparable without trust: equal hashes, equal input; another fingerprint, another model.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from eval.data import MEDIA_KINDS

WHOLE = 64 << 20  # bytes; of a larger weight file 4 KiB in every 256 are read: all of a large model takes minutes
BLOCK, STEP = 1 << 12, 1 << 18
_SMALL = (".json", ".jinja", ".model", ".txt", ".py", ".yaml")
_WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")


@lru_cache(maxsize=65536)
def _file_digest(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: str | Path) -> str:
    """sha256 of a file's bytes, remembered as long as size and time of change stay."""
    about = Path(path).stat()
    return _file_digest(str(path), about.st_size, about.st_mtime_ns)


def input_hash(messages: list[dict[str, Any]]) -> str:
    """sha256 of a conversation: its words, and of each medium the bytes, not the path.

    Independent of model, tokenizer and machine, so that two results files can be compared sample by sample.
    """
    return hashlib.sha256(json.dumps(_plain(messages), sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        media = value.get("type") in MEDIA_KINDS
        return {k: _medium(v) if media and k in (value["type"], "source") else _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else _medium(value)


def _medium(value: Any) -> str:
    if isinstance(value, dict):  # the channels of an MRI
        return hashlib.sha256(repr([(key, _medium(one)) for key, one in value.items()]).encode()).hexdigest()
    if isinstance(value, (str, Path)):
        if Path(value).is_dir():
            return _folder_digest(Path(value))
        return file_digest(value) if Path(value).is_file() else str(value)
    array = np.asarray(value)
    return hashlib.sha256(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def _folder_digest(folder: Path) -> str:
    """Of the files of a series, in whatever order and under whatever names: slices are ordered by what they hold."""
    files = [one for one in folder.rglob("*") if one.is_file() and not one.name.startswith(".")]
    return hashlib.sha256("".join(sorted(map(file_digest, files))).encode()).hexdigest()


def folder_fingerprint(folder: str | Path) -> str:
    """Of a checkpoint folder: names and sizes of its files, small ones in full, of large ones a block in every 256 KiB.

    All along a file: training often changes a part in its middle alone, such as the projector.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if not path.is_file() or path.suffix not in _SMALL + _WEIGHTS or path.name == "trainer_state.json":
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}\n".encode())
        with path.open("rb") as file:
            if path.suffix in _SMALL or size <= WHOLE:
                digest.update(file.read())
                continue
            for start in range(0, size, STEP):
                file.seek(start)
                digest.update(file.read(BLOCK))
    return digest.hexdigest()
