"""Plots of results files as inline SVG: figures with whiskers, distributions of scores, where the seconds went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from eval.report.charts import line, svg, text, ticks

COLOURS = 5


def colour(place: int) -> str:
    """The colour of the model at `place`; after five they repeat, names are beside them anyway."""
    return f"var(--s{place % COLOURS + 1})"


@dataclass(frozen=True)
class Whisker:
    """One figure: its value, the ends of its 95 % interval if there is one, controls as rings. None: not defined."""

    label: str
    value: float | None
    interval: tuple[float, float] | None = None
    rings: dict[str, float | None] = field(default_factory=dict)
    series: int = 0


def whiskers(
    groups: Sequence[tuple[str, Sequence[Whisker]]],
    low: float = 0.0,
    high: float = 1.0,
    name: str = "",
    width: float = 700,
) -> str:
    """Figures as dots with whiskers, one row each, under the title of their group.

    Args:
        low, high: ends of the axis; what lies outside widens it.
        name: read to people who do not see the drawing.
    """
    everything = [v for _, rows in groups for w in rows for v in (w.value, *(w.interval or ()), *w.rings.values())]
    known = [v for v in everything if v is not None]
    low, high = min([low, *known]), max([high, *known])
    left, right, row_height, top = 190.0, 142.0, 25.0, 24.0

    def x_of(value: float) -> float:
        return left + (width - left - right) * (value - low) / (high - low or 1.0)

    body, y = [], top
    for place, (title, rows) in enumerate(groups):
        y += 10 if place else 0
        if title:
            body.append(text(0, y + 17, _cut(title, 90), style="fill:var(--ink);font-weight:600"))
            y += row_height
        for row in rows:
            body += _row(row, y + 13, x_of, left, width - right, width)
            y += row_height
    axis = []
    for tick in [low + t for t in ticks(high - low, 5)] if low < 0 else ticks(high, 5):
        axis.append(line(x_of(tick), top - 6, x_of(tick), y + 4, "var(--line)"))
        axis.append(text(x_of(tick), 12, f"{tick:g}", "middle"))
    if low < 0 < high:
        axis.append(line(x_of(0), top - 6, x_of(0), y + 4, "var(--faint)", 'stroke-dasharray="3 3"'))
    return svg(width, y + 8, [*axis, *body], name)


def _row(row: Whisker, middle: float, x_of, left: float, right: float, width: float) -> list[str]:
    ink = colour(row.series)
    parts = [text(left - 16, middle + 4, _cut(row.label, 26), "end"), line(left, middle, right, middle, "var(--line)")]
    for control, value in row.rings.items():
        if value is not None:
            parts.append(f'<circle cx="{x_of(value):.1f}" cy="{middle:.1f}" r="4.5" fill="var(--paper)" '
                         f'stroke="var(--control)" stroke-width="2"><title>{escape(control)} {value:.3f}</title>'
                         "</circle>")  # fmt: skip
    if row.value is None:
        return [*parts, text(width, middle + 4, "–", "end")]
    words = f"{row.value:.3f}"
    if row.interval:
        low, high = row.interval
        parts.append(line(x_of(low), middle, x_of(high), middle, ink, 'stroke-width="2.5" stroke-opacity=".55"'))
        parts += [
            line(x_of(end), middle - 4.5, x_of(end), middle + 4.5, ink, 'stroke-width="1.5"') for end in (low, high)
        ]
        words += f" [{low:.3f}, {high:.3f}]"
    parts.append(
        f'<circle cx="{x_of(row.value):.1f}" cy="{middle:.1f}" r="5" fill="{ink}"><title>{words}</title></circle>'
    )
    parts.append(text(width, middle + 4, words, "end", "fill:var(--ink)"))
    return parts


def histogram(scores: Sequence[float], series: int = 0, bins: int = 10, width: float = 320, height: float = 120) -> str:
    """How many samples have which score, in equal bins between 0 and 1; scores beyond that widen the axis."""
    low, high = min(0.0, *scores), max(1.0, *scores)
    counts = [0] * bins
    for value in scores:
        counts[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
    floor, top, step = height - 20, 16.0, width / bins
    parts = []
    for place, number in enumerate(counts):
        tall = (floor - top) * number / max(counts)
        ends = [low + (high - low) * at / bins for at in (place, place + 1)]
        title = f"<title>{number} of {len(scores)}: {ends[0]:.2g} to {ends[1]:.2g}</title>"
        parts.append(f'<rect x="{place * step + 1.5:.1f}" y="{floor - tall:.1f}" width="{step - 3:.1f}" '
                     f'height="{max(tall, 0.5):.1f}" rx="1.5" fill="{colour(series)}">{title}</rect>')  # fmt: skip
        if number:
            parts.append(text(place * step + step / 2, floor - tall - 4, str(number), "middle"))
    parts.append(line(0, floor, width, floor, "var(--faint)"))
    parts += [text(width * at, height - 4, f"{low + (high - low) * at:g}", anchor)
              for at, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))]  # fmt: skip
    return svg(width, height, parts, f"Distribution of {len(scores)} scores")


@dataclass(frozen=True)
class Spent:
    """Seconds of a question by phase; `prefill` is None where the backend did not measure it."""

    label: str
    group: str
    encode: float
    prefill: float | None
    decode: float


def spent_bars(rows: Sequence[Spent], width: float = 700) -> str:
    """Where the seconds of a question go, one bar a row: encoding, prefill, decode."""
    left, right, row_height, top = 190.0, 86.0, 25.0, 24.0
    longest = max((r.encode + (r.prefill or 0.0) + r.decode for r in rows), default=0.0) or 1.0
    scale = (width - left - right) / longest
    parts, y, group = [], top, None
    for row in rows:
        if row.group != group:
            y += 10 if group is not None else 0
            group = row.group
            if row.group != row.label:
                parts.append(text(0, y + 17, _cut(row.group, 90), style="fill:var(--ink);font-weight:600"))
                y += row_height
        parts.append(text(left - 16, y + 17, _cut(row.label, 26), "end"))
        at = left
        for name, seconds, ink in _phases(row):
            span = seconds * scale
            title = f"<title>{name}: {seconds:.4f} s</title>"
            parts.append(f'<rect x="{at:.1f}" y="{y + 6:.1f}" width="{max(span - 1, 0.3):.1f}" height="14" rx="2" '
                         f'fill="{ink}">{title}</rect>')  # fmt: skip
            at += span
        parts.append(
            text(at + 8, y + 17, f"{sum(seconds for _, seconds, _ in _phases(row)):.3g} s", style="fill:var(--ink)")
        )
        y += row_height
    axis = [part for tick in ticks(longest, 5) for part in
            (line(left + tick * scale, top - 6, left + tick * scale, y + 4, "var(--line)"),
             text(left + tick * scale, 12, f"{tick:g}", "middle"))]  # fmt: skip
    return svg(width, y + 8, [*axis, *parts], "Seconds of a question by phase")


def _phases(row: Spent) -> list[tuple[str, float, str]]:
    rest = ("decode", row.decode, "var(--s1)") if row.prefill is not None else ("generating", row.decode, "var(--s1)")
    prefill = [("prefill", row.prefill, "var(--s2)")] if row.prefill is not None else []
    return [("encoding, other threads", row.encode, "var(--faint)"), *prefill, rest]


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
