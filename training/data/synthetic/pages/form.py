"""Forms: a label before its box, or small blocks with the label above its box."""

from __future__ import annotations

from training.data.synthetic.pages.canvas import Canvas
from training.data.synthetic.pages.registry import Fields, register_layout

WHITE = (255, 255, 255)


@register_layout("form", "boxes_beside", fields=3)
def boxes_beside(page: Canvas, fields: Fields) -> None:
    """Label with a colon, then a framed box that holds the value; a line to sign on."""
    for row, (label, value) in enumerate(fields):
        y = 32 * row + 14
        page.text(3, y, label + ":", "lm")
        page.box(64, y - 11, 93, y + 11, fill=WHITE)
        page.text(80, y, value, "mm")
    page.line(10, 116, 80, 116)


@register_layout("form", "boxes_below", fields=3)
def boxes_below(page: Canvas, fields: Fields) -> None:
    """Two blocks with the box below the label, and a last line with the box beside it; tick boxes between."""
    for x, (label, value) in zip((16, 80), fields):
        page.text(x, 16, label, "mm")
        page.box(x - 14, 36, x + 14, 60, fill=WHITE)
        page.text(x, 48, value, "mm")
    page.box(43, 43, 52, 52)
    label, value = fields[2]
    page.text(3, 82, label + ":", "lm")
    page.box(64, 71, 93, 93, fill=WHITE)
    page.text(80, 82, value, "mm")
    page.line(10, 116, 80, 116)
