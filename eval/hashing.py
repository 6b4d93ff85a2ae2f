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

ENDS = 1 << 20  # bytes read at either end of a weight file: whole files of a large model would take minutes
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
        media = value.get("type") in ("image", "video", "document")
        return {k: _medium(v) if media and k == value["type"] else _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else _medium(value)


def _medium(value: Any) -> str:
    if isinstance(value, (str, Path)):
        return file_digest(value) if Path(value).is_file() else str(value)
    array = np.asarray(value)
    return hashlib.sha256(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def folder_fingerprint(folder: str | Path) -> str:
    """Of a checkpoint folder: names and sizes of its files, small ones in full, weights by their first and last MiB."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if not path.is_file() or path.suffix not in _SMALL + _WEIGHTS or path.name == "trainer_state.json":
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(ENDS) if path.suffix in _WEIGHTS else file.read())
            if path.suffix in _WEIGHTS and size > ENDS:
                file.seek(-ENDS, 2)
                digest.update(file.read())
    return digest.hexdigest()
