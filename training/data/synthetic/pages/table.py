"""Tables: values below the heads of their columns, or rows of name, value and unit."""

from __future__ import annotations

from training.data.synthetic.pages.canvas import Canvas
from training.data.synthetic.pages.registry import Fields, register_layout

UNITS = ("kg", "pc", "hr", "ml")


@register_layout("table", "columns", fields=3, sizes=(12, 13))
def columns(page: Canvas, fields: Fields) -> None:
    """A shaded head row with the labels, the values one row below and their units below them, rules between."""
    page.box(0, 36, 95, 60, fill=tuple(c - 18 for c in page.paper))
    page.box(0, 60, 95, 124)
    page.line(0, 93, 95, 93)
    for column, (label, value) in enumerate(fields):
        x = 32 * column + 16
        page.text(x, 48, label, "mm")
        page.text(x, 78, value, "mm")
        page.text(x, 109, page.rng.choice(UNITS), "mm")
        if column:
            page.line(32 * column, 36, 32 * column, 124)


@register_layout("table", "rows", fields=3)
def rows(page: Canvas, fields: Fields) -> None:
    """One row a field: name, value, unit, with rules between rows and columns."""
    page.box(1, 1, 94, 93)
    for row, (label, value) in enumerate(fields):
        y = 32 * row + 14
        page.text(4, y, label, "lm")
        page.text(49, y, value, "mm")
        page.text(79, y, page.rng.choice(UNITS), "mm")
        if row:
            page.line(1, y - 15, 94, y - 15)
    page.line(36, 1, 36, 93)
    page.line(64, 1, 64, 93)
