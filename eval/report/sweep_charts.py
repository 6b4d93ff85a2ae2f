"""Accuracy against a cost, one labelled point a variant: the plot of the projector sweep, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from eval.report.charts import line, svg, text, ticks

LETTER = 6.4  # width of a letter of 12 px, on average
LABEL_HEIGHT = 14.0


@dataclass(frozen=True)
class Mark:
    """One variant: its cost, its score in 0..1, the 95 % interval of the score, what the pointer shows."""

    label: str
    cost: float
    score: float
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True)
class Box:
    """A rectangle that no label may cover."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)


def frontier(marks: Sequence[Mark]) -> list[Mark]:
    """The marks that no other one beats at the same cost or less, cheapest first."""
    best, kept = -math.inf, []
    for mark in sorted(marks, key=lambda m: (m.cost, -m.score)):
        if mark.score > best:
            kept.append(mark)
            best = mark.score
    return kept


def interval(score: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share `score` of `n` questions."""
    if n < 1:
        return 0.0, 1.0
    z = 1.96
    middle = (score + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(score * (1 - score) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def cost_ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """Round values of the cost axis between `low` and `high`: powers of two, or even steps."""
    if logarithmic:
        first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
        return [2.0**power for power in range(first, last + 1) if low <= 2.0**power <= high]
    step = ticks(high - low, 6)[1]
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def scatter(
    marks: Sequence[Mark], axis: str, score_axis: str, logarithmic: bool, width: float = 1016, height: float = 400
) -> str:
    """Points with whiskers and names. Filled and joined: not beaten at the same cost or less; hollow: beaten.

    Args:
        axis, score_axis: what the axes say, units included.
        logarithmic: the cost axis doubles at even steps.
    """
    left, right, top, bottom = 56.0, 24.0, 30.0, 46.0
    low, high = _limits([mark.cost for mark in marks], logarithmic)
    ceiling = min(1.0, max([mark.high for mark in marks], default=1.0) * 1.06) or 1.0
    scale = math.log2 if logarithmic else float

    def x_of(cost: float) -> float:
        return left + (width - left - right) * (scale(cost) - scale(low)) / (scale(high) - scale(low))

    def y_of(score: float) -> float:
        return height - bottom - (height - bottom - top) * score / ceiling

    parts = []
    for tick in ticks(ceiling):
        parts += [line(left, y_of(tick), width - right, y_of(tick), "var(--faint)" if tick == 0 else "var(--line)")]
        parts += [text(left - 10, y_of(tick) + 4, f"{tick:g}", "end")]
    for tick in cost_ticks(low, high, logarithmic):
        parts += [line(x_of(tick), top, x_of(tick), height - bottom, "var(--line)")]
        parts += [text(x_of(tick), height - bottom + 18, f"{tick:g}", "middle")]
    parts.append(text((left + width - right) / 2, height - 6, axis, "middle", "fill:var(--ink)"))
    parts.append(text(0, 14, score_axis, style="fill:var(--ink)"))

    best = frontier(marks)
    places = {mark: (x_of(mark.cost), y_of(mark.score)) for mark in marks}
    if len(best) > 1:
        path = "M" + "L".join(f"{places[mark][0]:.1f} {places[mark][1]:.1f}" for mark in best)
        parts.append(f'<path d="{path}" fill="none" stroke="var(--accent)" stroke-opacity=".45" stroke-width="1.5"/>')
    upper = sorted(marks, key=lambda mark: mark in best)  # drawn last, so on top
    parts += [_point(mark, places[mark], y_of, mark in best) for mark in upper]
    field = Box(left, top - 12, width, height - bottom)
    parts += _labels(marks, places, best, field, y_of)
    return svg(width, height, parts, f"{score_axis} against {axis}")


def _limits(costs: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    """Ends of the cost axis with some air; an even axis starts at 0 unless all costs lie close together."""
    low, high = min(costs, default=1.0), max(costs, default=2.0)
    if logarithmic:
        low = max(low, 1e-6)
        return min(low / 1.25, 2.0 ** math.floor(math.log2(low))), high * 1.6
    air = 0.12 * (high - low) or 0.1 * high or 1.0
    return (0.0 if high > 2.5 * low else max(0.0, low - air)), high + 2 * air


def _point(mark: Mark, place: tuple[float, float], y_of, is_best: bool) -> str:
    x, y = place
    colour = "var(--accent)" if is_best else "var(--soft)"
    fill = "var(--accent)" if is_best else "var(--paper)"
    whisker = line(x, y_of(mark.low), x, y_of(mark.high), colour, 'stroke-opacity=".5" stroke-width="1.5"')
    title = f"<title>{escape(mark.label)}: {escape(mark.note)}</title>"
    return (
        f'{whisker}<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{colour}" stroke-width="1.8">'
        f"{title}</circle>"
    )


def _labels(marks, places, best, field: Box, y_of) -> list[str]:
    """Names beside their points; where they would overlap they move away, with a thin line back."""
    taken = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in places.values()]
    parts = []
    for mark in sorted(marks, key=lambda m: (places[m][1], places[m][0])):
        x, y = places[mark]
        box, anchor, shift = _free_place(x, y, LETTER * len(mark.label), taken, field)
        taken.append(box)
        at = box.left if anchor == "start" else box.right
        middle = box.top + LABEL_HEIGHT / 2
        if shift:
            parts.append(line(x, y, at + (-3 if anchor == "start" else 3), middle, "var(--faint)", 'stroke-width=".8"'))
        style = "fill:var(--ink);font-weight:600" if mark in best else "fill:var(--soft)"
        style += ";paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round"  # readable over lines
        parts.append(text(at, middle + 4, mark.label, anchor, style))
    return parts


def _free_place(x: float, y: float, size: float, taken: list[Box], field: Box) -> tuple[Box, str, bool]:
    """(box, anchor, whether it moved away) of the nearest place that meets nothing."""
    first = None
    for step in range(0, 40):
        away = (step + 1) // 2 * LABEL_HEIGHT * (-1 if step % 2 else 1)
        gap = 11.0 if not away else 20.0
        for anchor, near in (("start", x + gap), ("end", x - gap - size)):
            box = Box(near, y + away - LABEL_HEIGHT / 2, near + size, y + away + LABEL_HEIGHT / 2)
            first = first or (box, anchor, False)
            inside = field.left <= box.left and box.right <= field.right
            if inside and field.top <= box.top and box.bottom <= field.bottom and not any(map(box.meets, taken)):
                return box, anchor, bool(away)
    return first
