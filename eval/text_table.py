"""Tables for a terminal and for Markdown: the same rows, laid out in columns or between pipes."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f]")


def plain(text: str, most: int = 60) -> str:
    """Words of a model on one line of a terminal: no control characters (they could move the cursor), not too long."""
    text = _CONTROL.sub("\ufffd", " ".join(str(text).split()))
    return text if len(text) <= most else text[: most - 1] + "…"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines, columns below each other; a row of one cell is a heading that no column minds."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max((len(r[c]) for r in rows if len(r) > 1 and c < len(r)), default=0) for c in range(columns)]
    lines = []
    for row in rows:
        cells = row if len(row) == 1 else [f"{cell:<{width}}" for cell, width in zip(row, widths)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of GitHub's Markdown; cells are plain words, whatever a model put into them is escaped."""
    lines = [_piped(head), "|" + "|".join([" --- "] + [" ---: "] * (len(head) - 1)) + "|"]
    return "\n".join([*lines, *(_piped(row) for row in rows)]) + "\n"


def markdown_text(text: str, most: int = 200) -> str:
    """Words that stay words in Markdown: no tags, no markup, no pipe that would open a cell."""
    text = plain(text, most).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~@!])", r"\\\1", text)


def _piped(cells: Sequence[str]) -> str:
    return "| " + " | ".join(markdown_text(cell) for cell in cells) + " |"
