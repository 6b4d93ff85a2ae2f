"""Receipts: a column of items with the amount at the right edge, or name and amount side by side."""

from __future__ import annotations

from training.data.synthetic.pages.canvas import Canvas
from training.data.synthetic.pages.registry import Fields, register_layout


def barcode(page: Canvas, x: int, y: int, width: int) -> None:
    """Stripes at the foot of a receipt."""
    while width > 3:
        stripe = page.rng.randint(1, 3)
        page.box(x, y, x + stripe - 1, y + 12, fill=page.ink, outline=False)
        gap = stripe + page.rng.randint(1, 3)
        x, width = x + gap, width - gap


@register_layout("receipt", "amounts_right", fields=3)
def amounts_right(page: Canvas, fields: Fields) -> None:
    """Labels at the left, amounts flush right, a dashed rule below each item, a barcode at the foot."""
    for row, (label, value) in enumerate(fields):
        y = 32 * row + 10
        page.text(4, y, label, "lm")
        page.text(89, y, value, "rm")
        page.line(6, y + 14, 88, y + 14, dashed=True)
    barcode(page, 20, 106, 56)


@register_layout("receipt", "amounts_inline", fields=3)
def amounts_inline(page: Canvas, fields: Fields) -> None:
    """Labels and amounts close together, a rule above the last item, as before a total."""
    for row, (label, value) in enumerate(fields):
        y = 32 * row + 42
        page.text(34, y, label, "lm")
        page.text(80, y, value, "mm")
    page.line(34, 94, 92, 94)
    barcode(page, 6, 10, 40)
