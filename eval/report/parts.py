"""Small pieces of HTML that the sections share: titled parts, tables, lists, and how numbers are written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from eval.report.charts import SHAPES
from eval.report.style import STYLE
from eval.table import label

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
FAINT_GAP = '<div class="gap"></div>'


def document(title: str, body: str) -> str:
    """The whole page: needs no other file and makes no request. `body` is HTML."""
    # A model writes any byte; HTML allows not all.
    title, body = (_CONTROL.sub("\ufffd", words) for words in (title, body))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def section(title: str, lede: str, body: str) -> str:
    """A titled part; nothing at all when there is no body. `lede` and `body` are HTML."""
    if not body:
        return ""
    lede = f'<p class="lede">{lede}</p>' if lede else FAINT_GAP
    return f"<section><h2>{escape(title)}</h2>{lede}{body}</section>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str] = (), plain: bool = False) -> str:
    """A table of HTML cells; `kinds` are the classes of the rows."""
    head_cells = "".join(f"<th>{cell}</th>" for cell in head)
    body = ""
    for place, cells in enumerate(rows):
        kind = f' class="{kinds[place]}"' if kinds else ""
        span = f' colspan="{len(head)}"' if len(cells) == 1 else ""
        body += f"<tr{kind}>" + "".join(f"<td{span}>{cell}</td>" for cell in cells) + "</tr>"
    style = ' class="plain"' if plain else ""
    return f'<div class="scroll"><table{style}><thead><tr>{head_cells}</tr></thead><tbody>{body}</tbody></table></div>'


def plot(drawing: str) -> str:
    """A drawing that scrolls sideways on a narrow screen rather than shrink its letters."""
    return f'<div class="plot">{drawing}</div>'


def two_sizes(wide: str, narrow: str) -> str:
    """A drawing in two layouts, of which the reader's screen shows one."""
    return f'<div class="wide">{wide}</div><div class="phone">{narrow}</div>'


def stage_head(number: str, title: str) -> str:
    """Column title of a stage."""
    return f"stage {escape(number)}<small>{escape(title)}</small>"


def facts(items: dict[str, Any]) -> str:
    """A list of names and values."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in items.items()) + "</dl>"


def legend(*entries: tuple[str, str]) -> str:
    """(class of the mark, words) pairs."""
    return '<div class="legend">' + "".join(f'<span><i class="{c}"></i>{w}</span>' for c, w in entries) + "</div>"


def control_marks(controls: Iterable[str]) -> list[tuple[str, str]]:
    """Entries of a legend for controls, each in the shape in which plots draw it."""
    return [(f"hollow {SHAPES.get(name, '')}".strip(), escape(label(name))) for name in controls]


def fold(title: str, body: str) -> str:
    """Something long, closed at first."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def score(value: float | None, places: int = 3) -> str:
    """`0.938`, or a dash for a figure that does not exist."""
    return "–" if value is None else f"{value:.{places}f}"


def count(value: float) -> str:
    """`1 450 000`, with narrow spaces."""
    return f"{value:,.0f}".replace(",", "\u202f")


def amount(value: Any) -> str:
    """A measured quantity with sensible digits."""
    if value is None:
        return "–"
    return count(value) if isinstance(value, int) or value >= 100 else f"{value:.1f}"


def rate(value: float | None) -> str:
    """A learning rate or decay with two digits."""
    return "" if value is None else f"{value:.2g}"


def millions(value: float) -> str:
    """`1.45 million`."""
    return f"{value / 1e9:.2f} billion" if value >= 1e9 else f"{value / 1e6:.2f} million"


def minutes(seconds: float) -> str:
    """`14 minutes`."""
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def in_words(number: int) -> str:
    """`four`."""
    return {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}.get(number, str(number))
