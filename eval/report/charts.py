"""Plots as inline SVG, drawn by hand: sharp at any size, no library, colours from the page's own variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

Point = tuple[float, float]
SHAPES = {"frames_shuffled": "square", "expert_withheld": "diamond", "expert_wrong": "cross"}
"""How a control is drawn; the others, images exchanged above all, are circles."""


def _n(value: float) -> str:
    """Coordinates to a tenth of a pixel: the page stays small and nobody sees the rest."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def text(x: float, y: float, words: str, anchor: str = "start", style: str = "") -> str:
    """One label."""
    style = f' style="{style}"' if style else ""
    return f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"{style}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = "var(--line)", extra: str = "") -> str:
    """One straight line."""
    return f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" stroke="{colour}" {extra}/>'


def svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    """A drawing that scales with the page; `label` is read to people who do not see it."""
    body = "".join(parts)
    return f'<svg viewBox="0 0 {_n(width)} {_n(height)}" role="img" aria-label="{escape(label)}">{body}</svg>'


def smooth(points: Sequence[Point], half_life: float) -> list[Point]:
    """Running mean that forgets half of a value within `half_life` points; without the usual lag at the start."""
    keep = 0.5 ** (1 / max(half_life, 1e-9))
    total = weight = 0.0
    out = []
    for x, y in points:
        total, weight = total * keep + y, weight * keep + 1
        out.append((x, total / weight))
    return out


def ticks(top: float, most: int = 5) -> list[float]:
    """Round numbers from 0 up to `top`, at most `most` steps."""
    step = 10.0**-6
    for power in range(-6, 10):
        for factor in (1, 2, 5):
            step = factor * 10.0**power
            if top / step <= most:
                return [i * step for i in range(int(top / step + 1e-9) + 1)]
    return [0.0, step]


@dataclass
class Band:
    """One stage in the loss plot."""

    title: str
    losses: Sequence[Point]
    seconds: float | None = None
    before: float | None = None
    after: float | None = None
    notes: list[str] = field(default_factory=list)


def loss_bands(bands: Sequence[Band], width: float = 1016, height: float = 300) -> str:
    """Loss over steps, the stages side by side on one loss axis; held-out loss before and after as dots."""
    left, top, bottom, gap = 34.0, 44.0, 26.0, 22.0
    right = 6.0
    inner = width - left - right - gap * (len(bands) - 1)
    sizes = [max(len(band.losses), 1) ** 0.5 for band in bands]
    smallest = 0.16 * sum(sizes)  # a short stage stays readable
    sizes = [max(size, smallest) for size in sizes]
    lines = [smooth(band.losses, max(2.0, len(band.losses) / 60)) for band in bands]
    seen = [y for points in lines for _, y in points] + [v for b in bands for v in (b.before, b.after) if v is not None]
    highest = max(seen, default=1.0) * 1.04 or 1.0
    floor = height - bottom

    def y_of(loss: float) -> float:
        return floor - (floor - top) * min(loss, highest) / highest

    parts = []
    for tick in ticks(highest):
        parts += [line(left, y_of(tick), width - right, y_of(tick)), text(left - 8, y_of(tick) + 4, f"{tick:g}", "end")]
    at = left
    for band, points, size in zip(bands, lines, sizes):
        span = inner * size / sum(sizes)
        steps = [x for x, _ in band.losses] or [0.0]
        low, high = min(steps), max(steps)

        def place(point: Point, at: float = at, span: float = span, low: float = low, high: float = high) -> Point:
            return at + span * (point[0] - low) / max(high - low, 1e-9), y_of(point[1])

        parts.append(text(at, 14, band.title, style="fill:var(--ink);font-weight:600;font-size:13px"))
        about = f"{_count(high)} steps" + (f", {band.seconds:.0f} s" if band.seconds else "")
        parts.append(text(at, 30, about))
        if len(points) > 1:
            raw = [place(p) for p in _thin(band.losses, 400)]
            fine = [place(p) for p in _thin(points, 400)]
            parts.append(f'<path d="{_path(raw)}" fill="none" stroke="var(--accent)" stroke-opacity=".22"/>')
            parts.append(f'<path d="{_path(fine)}" fill="none" stroke="var(--accent)" stroke-width="2" '
                         'stroke-linejoin="round"/>')  # fmt: skip
        ends = [(at, band.before), (at + span, band.after)]
        for x, y, value in [(x, y_of(v), v) for x, v in ends if v is not None]:
            parts.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="4" fill="var(--paper)" stroke="var(--control)" '
                         f'stroke-width="2"><title>held-out {value:.3f}</title></circle>')  # fmt: skip
            shift, anchor = (8, "start") if x == at else (-8, "end")
            parts.append(text(x + shift, y - 9, f"{value:.2f}", anchor, "fill:var(--control);font-weight:600"))
        parts.append(line(at, floor, at + span, floor, "var(--faint)"))
        parts += [text(at, height - 8, _count(low)), text(at + span, height - 8, _count(high), "end")]
        at += span + gap
    return svg(width, height, parts, "Training loss of each stage")


def _thin(points: Sequence[Point], most: int) -> list[Point]:
    step = max(1, len(points) // most)
    kept = list(points[::step])
    return kept if kept[-1:] == list(points[-1:]) else [*kept, points[-1]]


def _count(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


@dataclass(frozen=True)
class Ring:
    """The figure under a control, as a hollow mark; `words` are shown where the pointer rests."""

    words: str
    value: float | None
    shape: str = ""


def ring_mark(ring: Ring, x: float, y: float) -> str:
    """A control's mark at its place."""
    paint = f'fill="var(--paper)" stroke="var(--control)" stroke-width="2"><title>{escape(ring.words)}</title>'
    if ring.shape == "cross":
        return f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" {paint}</path>'
    if ring.shape:
        turned = f' transform="rotate(45 {x:.1f} {y:.1f})"' if ring.shape == "diamond" else ""
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"{turned} {paint}</rect>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {paint}</circle>'


@dataclass
class Dumbbell:
    """One line of `dumbbells`: a score and the scores with the evidence taken away."""

    label: str
    group: str
    score: float | None
    controls: Sequence[Ring]
    n: int | None = None


def dumbbells(rows: Sequence[Dumbbell], width: float = 1016) -> str:
    """Scores as filled dots, controls as rings, one row a kind of question; the gap is what looking is worth."""
    left, right, row_height, group_gap, top = 210.0, 56.0, 27.0, 20.0, 26.0

    def x_of(score: float) -> float:
        return left + (width - left - right) * score

    parts, y, group = [], top, None
    body = []
    for row in rows:
        if row.group != group:
            y += group_gap if group is not None else 0
            group = row.group
            body.append(text(0, y + 18, group, style="fill:var(--ink);font-weight:600"))
        middle = y + 14
        body.append(text(left - 20, middle + 4, row.label, "end"))
        known = [v for v in (row.score, *(ring.value for ring in row.controls)) if v is not None]
        body.append(line(left, middle, width - right, middle, "var(--line)"))
        if known:
            body.append(line(x_of(min(known)), middle, x_of(max(known)), middle, "var(--faint)", 'stroke-width="1.5"'))
        body += [ring_mark(ring, x_of(ring.value), middle) for ring in row.controls if ring.value is not None]
        if row.score is not None:
            body.append(f'<circle cx="{_n(x_of(row.score))}" cy="{_n(middle)}" r="6" fill="var(--accent)">'
                        f"<title>{row.score:.3f}</title></circle>")  # fmt: skip
            body.append(text(width, middle + 4, f"{row.score:.2f}", "end", "fill:var(--ink);font-weight:600"))
        y += row_height
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(line(x_of(tick), top - 6, x_of(tick), y + 4, "var(--line)"))
        parts.append(text(x_of(tick), 12, f"{tick:g}", "middle"))
    return svg(width, y + 8, [*parts, *body], "Scores with and without the evidence, by kind of question")


def timeline(steps: dict[str, float], width: float = 1016) -> str:
    """Where the wall time went: one bar, a segment a step, the longer ones labelled."""
    total = sum(steps.values()) or 1.0
    parts, at = [], 0.0
    for place, (name, seconds) in enumerate(steps.items()):
        span = width * seconds / total
        colour = "var(--accent)" if "stage" in name and "evaluation" not in name else "var(--faint)"
        opacity = (0.85, 0.6)[place % 2]
        title = f"<title>{escape(name)}: {seconds:.0f} s</title>"
        parts.append(f'<rect x="{_n(at)}" y="0" width="{_n(max(span - 1.5, 0.5))}" height="22" rx="2" fill="{colour}" '
                     f'fill-opacity="{opacity}">{title}</rect>')  # fmt: skip
        short = name.split(":")[0]
        if span > 7.2 * len(short):
            parts += [text(at, 40, short), text(at, 55, f"{seconds:.0f} s", style="fill:var(--faint)")]
        at += span
    return svg(width, 60, parts, "Seconds of every step")
