"""Forms: a label before its box, or small blocks with the label above its box."""

from __future__ import annotations

from training.data.synthetic.pages.canvas import Canvas
from training.data.synthetic.pages.registry import Fields, register_layout


@register_layout("form", "boxes_beside", fields=3)
def boxes_beside(page: Canvas, fields: Fields) -> None:
    """Label with a colon, then a framed box that holds the value."""
    for row, (label, value) in enumerate(fields):
        y = 32 * row + 13
        page.text(4, y, label + ":", "lm")
        page.box(62, y - 11, 98, y + 11, fill=(255, 255, 255))
        page.text(80, y, value, "mm")


@register_layout("form", "boxes_below", fields=3)
def boxes_below(page: Canvas, fields: Fields) -> None:
    """Two blocks with the box below the label, and a last line with the box beside it."""
    for x, (label, value) in zip((18, 82), fields):
        page.text(x, 14, label, "mm")
        page.box(x - 16, 34, x + 16, 58, fill=(255, 255, 255))
        page.text(x, 46, value, "mm")
        page.box(x + 27, 41, x + 36, 50)  # an empty tick box
    label, value = fields[2]
    page.text(4, 80, label + ":", "lm")
    page.box(62, 69, 98, 91, fill=(255, 255, 255))
    page.text(80, 80, value, "mm")
