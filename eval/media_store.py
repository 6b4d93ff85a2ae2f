"""Media of public datasets as files: named by their content, so that each is written once and results can point at it.

Rows of `datasets` hold pictures as bytes or objects; hashing, controls, reports and comparisons all want a path.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

_KINDS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"%PDF": ".pdf"}
_KINDS |= {b"\x1f\x8b": ".nii.gz"}
_LATER = {(128, b"DICM"): ".dcm", (344, b"n+1\0"): ".nii"}  # with the place where it stands
MAX_BYTES = 512 << 20


class MediaStore:
    """A folder of media files."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def save(self, value: Any, folder: bool = False) -> str:
        """The path of a medium given as `{"bytes", "path"}` (undecoded), bytes, PIL image or existing file; with
        `folder` also of a folder of slices, which stays where it is.

        Bytes are kept as they are. Raises ValueError for nothing, for something else, and above 512 MB.
        """
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, (str, Path)):
            if not Path(value).is_file() and not (folder and Path(value).is_dir()):
                raise ValueError(f"{value}: no such file")
            return str(Path(value).resolve())
        if hasattr(value, "save"):
            stream = io.BytesIO()
            value.save(stream, format="PNG")
            value = stream.getvalue()
        if not isinstance(value, bytes) or not value:
            raise ValueError(f"no picture in the row, but {type(value).__name__}")
        if len(value) > MAX_BYTES:
            raise ValueError(f"a picture of {len(value):,} bytes; at most {MAX_BYTES:,} are read")
        suffix = next((suffix for start, suffix in _KINDS.items() if value.startswith(start)), ".img")
        for (place, mark), one in _LATER.items():
            suffix = one if value[place : place + len(mark)] == mark else suffix
        name = hashlib.sha256(value).hexdigest()
        path = self.folder / name[:2] / f"{name}{suffix}"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.write_bytes(value)
            draft.replace(path)
        return str(path.resolve())
