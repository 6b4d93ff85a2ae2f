"""Receipts: a column of items with the amount at the right edge, or name and amount side by side."""

from __future__ import annotations

from training.data.synthetic.pages.canvas import Canvas
from training.data.synthetic.pages.registry import Fields, register_layout


@register_layout("receipt", "amounts_right", fields=3)
def amounts_right(page: Canvas, fields: Fields) -> None:
    """Labels at the left, amounts flush right, a dashed rule below each item."""
    for row, (label, value) in enumerate(fields):
        y = 32 * row + 9
        page.text(4, y, label, "lm")
        page.text(124, y, value, "rm")
        page.line(6, y + 14, 122, y + 14, dashed=True)


@register_layout("receipt", "amounts_inline", fields=3)
def amounts_inline(page: Canvas, fields: Fields) -> None:
    """Labels and amounts close together, a rule above the last item, as before a total."""
    for row, (label, value) in enumerate(fields):
        y = 32 * row + 9
        page.text(34, y, label, "lm")
        page.text(80, y, value, "mm")
    page.line(30, 62, 98, 62)
