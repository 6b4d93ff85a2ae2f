"""Tables: values below the heads of their columns, or rows of name, value and unit."""

from __future__ import annotations

from training.data.synthetic.pages.canvas import Canvas
from training.data.synthetic.pages.registry import Fields, register_layout

UNITS = ("kg", "pc", "hr", "ml")


@register_layout("table", "columns", fields=4, sizes=(12, 13))
def columns(page: Canvas, fields: Fields) -> None:
    """A shaded head row with the labels, the values one row below, vertical rules between."""
    page.box(0, 14, 127, 37, fill=tuple(c - 18 for c in page.paper))
    page.box(0, 37, 127, 66)
    for column, (label, value) in enumerate(fields):
        x = 32 * column + 16
        page.text(x, 25, label, "mm")
        page.text(x, 51, value, "mm")
        if column:
            page.line(32 * column, 14, 32 * column, 66)


@register_layout("table", "rows", fields=3)
def rows(page: Canvas, fields: Fields) -> None:
    """One row a field: name, value, unit, with rules between rows and columns."""
    page.box(1, 1, 126, 92)
    for row, (label, value) in enumerate(fields):
        y = 32 * row + 14
        page.text(5, y, label, "lm")
        page.text(50, y, value, "mm")
        page.text(82, y, page.rng.choice(UNITS), "mm")
        if row:
            page.line(1, y - 15, 126, y - 15)
    page.line(37, 1, 37, 92)
    page.line(64, 1, 64, 92)
