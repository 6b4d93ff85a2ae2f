"""Bar charts: the bars' length is the value, and the value is written at the end of its bar."""

from __future__ import annotations

from training.data.synthetic.pages.canvas import Canvas
from training.data.synthetic.pages.registry import Fields, register_layout


def bar_colour(page: Canvas) -> tuple[int, int, int]:
    """One muted colour a bar."""
    return (page.rng.randint(70, 190), page.rng.randint(70, 190), page.rng.randint(70, 190))


@register_layout("bar_chart", "upright", fields=4, sizes=(12, 13))
def upright(page: Canvas, fields: Fields) -> None:
    """Bars that stand on an axis, label below, value above."""
    for column, (label, value) in enumerate(fields):
        x, top = 32 * column + 16, 74 - 0.56 * int(value)
        page.box(x - 9, top, x + 9, 76, fill=bar_colour(page), outline=False)
        page.text(x, top - 9, value, "mm")
        page.text(x, 87, label, "mm")
    page.line(2, 77, 125, 77)


@register_layout("bar_chart", "lying", fields=3)
def lying(page: Canvas, fields: Fields) -> None:
    """Bars that grow to the right of an axis, label before, value behind the end."""
    for row, (label, value) in enumerate(fields):
        y = 32 * row + 14
        end = 38 + 0.62 * int(value)
        page.text(3, y, label, "lm")
        page.box(38, y - 8, end, y + 8, fill=bar_colour(page), outline=False)
        page.text(end + 13, y, value, "mm")
    page.line(37, 0, 37, 93)
