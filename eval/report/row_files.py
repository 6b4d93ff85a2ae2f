"""Where the image files of a row lie: what was shown, and what experts read.

Rows name what an expert read by its path below the folder of the data, where shown files have their whole path; or by
a digest, which leads to no file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

Row = dict[str, Any]
DEEPEST = 12  # folders of the data between its root and a file


def expert_file(row: Row, name: str | None) -> str | None:
    """The path of a file that `calls` or `expert_file` of a row name; None where it cannot be found."""
    if not name:
        return None
    if Path(name).is_absolute():
        return name
    shown = [str(path) for path in row.get("media") or []]
    own = next((path for path in shown if Path(path).parts[-len(Path(name).parts) :] == Path(name).parts), None)
    if own is not None:
        return own
    for path in shown:
        for folder in list(Path(path).parents)[:DEEPEST]:
            if (folder / name).exists():
                return str(folder / name)
    return None


def files_of(row: Row) -> list[str]:
    """All image files that a row is about, the wrong expert's and an exchanged picture's too."""
    read = [row.get("expert_file"), *(call.get("file") for call in row.get("calls") or [])]
    found = [*row.get("media", []), *(row.get("shown") or []), *(expert_file(row, name) for name in read)]
    return [str(file) for file in dict.fromkeys(found) if file]
