"""Plots of check-data's page: histograms with their limit, languages as bars, picture sizes as a map.

Not a command itself; the pieces of SVG are those of the evaluation report.
"""

import math

import numpy as np

BINS = 48
MAP = (64, 40)  # cells of the map of sizes


def histogram(values, limit: int | None, unit: str, width: float = 1016, height: float = 190) -> str:
    """How many records are how long, from 0; `limit` is drawn, what lies beyond it is coloured."""
    from eval.report.charts import line, svg, text, ticks

    values = np.asarray(values)
    left, right, top, bottom = 56.0, 8.0, 22.0, 30.0
    longest = int(values.max(initial=1))
    usual = max(float(np.percentile(values, 99, method="lower")) if len(values) else 0, limit or 0)
    # a few enormous samples would press all others into one bar: they share the last one
    highest = max(1, math.ceil(1.5 * usual if longest > 3 * usual else max(longest, 1.02 * (limit or 0))))
    step = highest / min(BINS, highest)
    if limit is not None:  # is where one bar ends and another begins
        step = limit / max(1, round(limit / step))
    edges = step * np.arange(math.ceil(round(highest / step, 6)) + 1)
    highest = float(edges[-1])
    counts, _ = np.histogram(np.clip(values - 0.5, 0, highest), edges)  # a sample of max_length is within
    most = int(counts.max(initial=1)) or 1

    def x_of(value: float) -> float:
        return left + (width - left - right) * value / highest

    def y_of(count: float) -> float:
        return height - bottom - (height - top - bottom) * count / most

    parts = []
    for tick in ticks(most, 3):
        parts.append(line(left, y_of(tick), width - right, y_of(tick)))
        parts.append(text(left - 8, y_of(tick) + 4, _short(tick), "end"))
    for count, low, high in zip(counts.tolist(), edges, edges[1:]):
        if count:
            beyond = limit is not None and high > limit + 1e-6
            y = min(y_of(count), height - bottom - 1)
            parts.append(
                f'<rect x="{x_of(low) + 0.5:.1f}" y="{y:.1f}" width="{max(1, x_of(high) - x_of(low) - 1):.1f}" '
                f'height="{height - bottom - y:.1f}" rx="1.5" fill="var(--{"wrong" if beyond else "accent"})">'
                f"<title>{low:,.0f} to {longest if high == highest else high:,.0f} {unit}: {count:,}</title></rect>"
            )
    for tick in ticks(highest, 8):
        parts.append(text(x_of(tick), height - 10, _short(tick), "middle"))
    if longest > highest:
        parts.append(text(width - right, top - 4, f"the last bar holds all longer ones, up to {longest:,}", "end"))
    if limit is not None:
        x, anchor = x_of(limit), "end" if limit > highest / 4 else "start"
        dashed = 'stroke-width="1.5" stroke-dasharray="4 3"'
        parts.append(line(x, top - 12, x, height - bottom, "var(--control)", dashed))
        at = x - 6 if anchor == "end" else x + 6
        parts.append(text(at, top - 4, f"max_length {limit:,}", anchor, "fill:var(--control);font-weight:600"))
    return svg(width, height, parts, f"How many samples have how many {unit}")


def bars(counts: dict[str, int], width: float = 1016, most: int = 10) -> str:
    """Shares of a whole, the largest first, each with its name and figure."""
    from eval.report.charts import svg, text

    total = sum(counts.values()) or 1
    rows = list(counts.items())[:most]
    if rest := total - sum(count for _, count in rows):
        rows.append((f"{len(counts) - most} others", rest))
    left, right, step = 270.0, 120.0, 25.0
    largest = max((count for _, count in rows), default=1)
    parts = []
    for number, (name, count) in enumerate(rows):
        y, span = number * step, (width - left - right) * count / largest
        parts += [
            text(left - 14, y + 15, name, "end", "fill:var(--ink);font-size:13px"),
            f'<rect x="{left:.1f}" y="{y + 5:.1f}" width="{max(span, 1.5):.1f}" height="13" rx="2" '
            'fill="var(--accent)"/>',
            text(left + max(span, 1.5) + 9, y + 15, f"{count:,} · {count / total:.1%}"),
        ]
    return svg(width, len(rows) * step + 4, parts, "Languages")


def size_map(widths, heights, width: float = 1016, height: float = 420) -> str:
    """How many pictures have which width and height in pixels, both on a logarithmic scale; the darker the more."""
    from eval.report.charts import line, svg, text

    widths, heights = (np.maximum(np.asarray(side, dtype=np.float64), 1) for side in (widths, heights))
    left, right, top, bottom = 64.0, 14.0, 30.0, 52.0
    low = 2 ** math.floor(math.log2(min(widths.min(), heights.min())) - 0.2)
    high = 2 ** math.ceil(math.log2(max(widths.max(), heights.max())) + 0.2)
    cells, x_edges, y_edges = np.histogram2d(
        np.log2(widths), np.log2(heights), bins=MAP, range=[[math.log2(low), math.log2(high)]] * 2
    )

    def x_of(power: float) -> float:
        return left + (width - left - right) * (power - math.log2(low)) / math.log2(high / low)

    def y_of(power: float) -> float:
        return height - bottom - (height - top - bottom) * (power - math.log2(low)) / math.log2(high / low)

    parts = []
    for power in range(round(math.log2(low)), round(math.log2(high)) + 1):
        parts.append(line(left, y_of(power), width - right, y_of(power)))
        parts.append(text(left - 9, y_of(power) + 4, f"{2**power}", "end"))
        parts.append(line(x_of(power), top, x_of(power), height - bottom))
        parts.append(text(x_of(power), height - 32, f"{2**power}", "middle"))
    diagonal = line(x_of(math.log2(low)), y_of(math.log2(low)), x_of(math.log2(high)), y_of(math.log2(high)),
                    "var(--faint)", 'stroke-dasharray="2 4"')  # fmt: skip
    parts.append(diagonal)
    for column, row in np.argwhere(cells > 0):
        x, y = x_of(x_edges[column]), y_of(y_edges[row + 1])
        strength = 0.25 + 0.75 * math.log1p(cells[column, row]) / math.log1p(cells.max())
        size = " × ".join(f"{2 ** e[i]:.0f}–{2 ** e[i + 1]:.0f}" for e, i in ((x_edges, column), (y_edges, row)))
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{x_of(x_edges[column + 1]) - x - 0.6:.1f}" '
            f'height="{y_of(y_edges[row]) - y - 0.6:.1f}" rx="1.5" fill="var(--accent)" fill-opacity="{strength:.2f}">'
            f"<title>{size} pixels: {cells[column, row]:,.0f}</title></rect>"
        )
    parts.append(text(width - right, height - 8, "width in pixels →", "end"))
    parts.append(text(0, 12, "↑ height in pixels"))
    return svg(width, height, parts, "Width and height of the pictures")


def _short(value: float) -> str:
    """ "12", "3.4k", "1.2M"."""
    for bound, unit in ((1e6, "M"), (1e3, "k")):
        if value >= bound:
            return f"{value / bound:.3g}{unit}"
    return f"{value:g}"
