"""Bar charts: the bars' length is the value, and the value is written as a number too."""

from __future__ import annotations

from training.data.synthetic.pages.canvas import Canvas
from training.data.synthetic.pages.registry import Fields, register_layout


def bar_colour(page: Canvas) -> tuple[int, int, int]:
    """One muted colour a bar."""
    return (page.rng.randint(70, 190), page.rng.randint(70, 190), page.rng.randint(70, 190))


@register_layout("bar_chart", "upright", fields=3, sizes=(12, 13))
def upright(page: Canvas, fields: Fields) -> None:
    """Bars that stand on an axis, their height the value, with a table of labels and values under the axis."""
    for column, (label, value) in enumerate(fields):
        x = 32 * column + 16
        page.box(x - 9, 66 - 0.58 * int(value), x + 9, 66, fill=bar_colour(page), outline=False)
        page.text(x, 80, label, "mm")
        page.text(x, 112, value, "mm")
    page.line(2, 67, 93, 67)
    page.line(2, 96, 93, 96)
    page.line(2, 8, 2, 67)


@register_layout("bar_chart", "lying", fields=3)
def lying(page: Canvas, fields: Fields) -> None:
    """Bars that grow to the right of an axis, label before them, values in a column at the right."""
    for row, (label, value) in enumerate(fields):
        y = 32 * row + 14
        page.text(2, y, label, "lm")
        page.box(34, y - 8, 34 + 0.28 * int(value), y + 8, fill=bar_colour(page), outline=False)
        page.text(80, y, value, "mm")
    page.line(33, 0, 33, 93)
