"""Plots of results files as inline SVG: figures with whiskers, distributions of scores, where the seconds went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from eval.report.charts import Ring, line, ring_mark, svg, text, ticks

COLOURS = 5
LETTER = 6.8  # pixels, on average; a little more than most fonts need
LONGEST = 60


def colour(place: int) -> str:
    """The colour of the model at `place`; after five they repeat, names are beside them anyway."""
    return f"var(--s{place % COLOURS + 1})"


@dataclass(frozen=True)
class Whisker:
    """One figure: its value, the ends of its 95 % interval if there is one, its controls. None: not defined."""

    label: str
    value: float | None
    interval: tuple[float, float] | None = None
    rings: Sequence[Ring] = ()
    series: int = 0
    lower: bool = False
    """Lower is better: drawn as a triangle that points down, so that 1.0 does not look like a perfect score."""
    ink: str = ""
    """A colour instead of the series' own."""


@dataclass(frozen=True)
class Layout:
    """Where a plot of rows puts names and values: beside the axis, or above each row for a telephone."""

    width: float
    left: float
    right: float
    row_height: float
    letters: int
    """Of a group's title, at most."""
    above: bool = False
    lines: int = 1
    """Of words above a row: 2 where name and value do not fit beside each other."""

    @property
    def inner(self) -> float:
        return self.width - self.left - self.right

    def fitted(self, names: Sequence[str]) -> Layout:
        """The layout with room for the longest name: a wider drawing, or a line of its own for the values."""
        longest = min(max(map(len, names), default=0), LONGEST) * LETTER
        if self.above:
            return replace(self, lines=2) if longest > self.width - VALUE else self
        more = max(0.0, longest + 16 - self.left)
        return replace(self, left=self.left + more, width=self.width + more)

    @property
    def step(self) -> float:
        """From one row to the next."""
        return self.row_height + 15 * (self.lines - 1)

    def words(self, y: float, name: str, value: str) -> list[str]:
        """Name and value of the row that starts at `y`."""
        name = _cut(name, LONGEST)
        if self.above:
            below = y + 13 + 15 * (self.lines - 1)
            return [text(0, y + 13, name), text(self.width, below, value, "end", "fill:var(--ink)")]
        middle = y + self.row_height / 2 + 4
        return [text(self.left - 16, middle, name, "end"), text(self.width, middle, value, "end", "fill:var(--ink)")]

    def middle(self, y: float) -> float:
        """Of the row's dots and bars."""
        return y + (26 + 15 * (self.lines - 1) if self.above else self.row_height / 2)

    def title(self, y: float, words: str) -> str:
        return text(0, y + 17, _cut(words, self.letters), style="fill:var(--ink);font-weight:600")


VALUE = 150.0  # pixels of `0.913 [0.890, 0.950]`
WIDE = Layout(700, 190, 164, 25, 90)
NARROW = Layout(360, 6, 6, 38, 48, above=True)


def whiskers(
    groups: Sequence[tuple[str, Sequence[Whisker]]],
    low: float = 0.0,
    high: float = 1.0,
    name: str = "",
    layout: Layout = WIDE,
    signed: bool = False,
) -> str:
    """Figures as dots with whiskers, one row each, under the title of their group.

    Args:
        low, high: ends of the axis; what lies outside widens it.
        name: read to people who do not see the drawing.
        signed: values are differences: written with their sign, around a zero line.
    """
    layout = layout.fitted([w.label for _, rows in groups for w in rows])
    shown = [(w.value, *(w.interval or ()), *(ring.value for ring in w.rings)) for _, rows in groups for w in rows]
    everything = [value for values in shown for value in values]
    known = [v for v in everything if v is not None]
    low, high = min([low, *known]), max([high, *known])

    def x_of(value: float) -> float:
        return layout.left + layout.inner * (value - low) / (high - low or 1.0)

    top, body = 24.0, []
    y = top
    for place, (title, rows) in enumerate(groups):
        y += 10 if place else 0
        if title:
            body.append(layout.title(y, title))
            y += 25
        for row in rows:
            body += _row(row, y, x_of, layout, signed)
            y += layout.step
    step = ticks(high - low, 5)[1]
    axis = []
    for tick in (step * place for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)):
        axis.append(line(x_of(tick), top - 6, x_of(tick), y + 4, "var(--line)"))
        axis.append(text(x_of(tick), 12, f"{round(tick, 6) + 0.0:g}", "middle"))
    if low < 0 < high:
        axis.append(line(x_of(0), top - 6, x_of(0), y + 4, "var(--faint)", 'stroke-dasharray="3 3"'))
    return svg(layout.width, y + 8, [*axis, *body], name)


def _row(row: Whisker, y: float, x_of, layout: Layout, signed: bool) -> list[str]:
    ink, middle = row.ink or ("var(--wrong)" if row.lower else colour(row.series)), layout.middle(y)
    form = "+.3f" if signed else ".3f"
    words = "–" if row.value is None else f"{row.value:{form}}"
    if row.interval:
        words += f" [{row.interval[0]:{form}}, {row.interval[1]:{form}}]"
    parts = [*layout.words(y, row.label, words)]
    parts.append(line(layout.left, middle, layout.left + layout.inner, middle, "var(--line)"))
    parts += [ring_mark(ring, x_of(ring.value), middle) for ring in row.rings if ring.value is not None]
    if row.interval:
        ends = [x_of(end) for end in row.interval]
        parts.append(line(ends[0], middle, ends[1], middle, ink, 'stroke-width="2.5" stroke-opacity=".55"'))
        parts += [line(x, middle - 4.5, x, middle + 4.5, ink, 'stroke-width="1.5"') for x in ends]
    if row.value is not None:
        x, title = x_of(row.value), f"<title>{words}</title>"
        if row.lower:
            corners = f"{x - 5.5:.1f},{middle - 4.5:.1f} {x + 5.5:.1f},{middle - 4.5:.1f} {x:.1f},{middle + 5:.1f}"
            parts.append(f'<polygon points="{corners}" fill="{ink}">{title}</polygon>')
        else:
            parts.append(f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="4.5" fill="{ink}">{title}</circle>')
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


def spent_bars(rows: Sequence[Spent], layout: Layout = WIDE) -> str:
    """Where the seconds of a question go, one bar a row: encoding, prefill, decode."""
    longest = max((sum(seconds for _, seconds, _ in _phases(row)) for row in rows), default=0.0) or 1.0
    top, parts, group = 24.0, [], None
    layout = layout.fitted([row.label for row in rows])
    scale = layout.inner / longest
    y = top
    for row in rows:
        if row.group != group:
            y += 10 if group is not None else 0
            group = row.group
            if row.group != row.label:
                parts.append(layout.title(y, row.group))
                y += 25
        total = sum(seconds for _, seconds, _ in _phases(row))
        parts += layout.words(y, row.label, f"{total:.3g} s")
        at = layout.left
        for name, seconds, ink in _phases(row):
            span = seconds * scale
            title = f"<title>{name}: {seconds:.4f} s</title>"
            parts.append(f'<rect x="{at:.1f}" y="{layout.middle(y) - 6:.1f}" width="{max(span - 1, 0.3):.1f}" '
                         f'height="12" rx="2" fill="{ink}">{title}</rect>')  # fmt: skip
            at += span
        y += layout.step
    axis = []
    for tick in ticks(longest, 4):
        x = layout.left + tick * scale
        axis += [line(x, top - 6, x, y + 4, "var(--line)"), text(x, 12, f"{tick:g}", "middle")]
    return svg(layout.width, y + 8, [*axis, *parts], "Seconds of a question by phase")


def _phases(row: Spent) -> list[tuple[str, float, str]]:
    encode = ("encoding, other threads", row.encode, "var(--faint)")
    if row.prefill is None:
        return [encode, ("prefill and decode", row.decode, "var(--s3)")]
    return [encode, ("prefill", row.prefill, "var(--s2)"), ("decode", row.decode, "var(--s1)")]


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
