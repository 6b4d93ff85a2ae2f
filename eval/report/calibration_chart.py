"""The reliability diagram as inline SVG: how often the answer was yes, against how sure the model was of yes.

On the dashed line 70 of 100 answers given with a probability of 0.7 are right. A dot's area is its number of answers;
its whisker the 95 % interval (Wilson), so that a dot of five answers does not pass for a finding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from eval.proportion import wilson
from eval.report.charts import line, svg, text

LARGEST, SMALLEST = 13.0, 2.2


def reliability(bins: Sequence[Mapping[str, Any]], ink: str = "var(--s1)", width: float = 320) -> str:
    """A dot a bin. `bins`: low, high, count, mean_p, share_yes; empty bins are left out."""
    shown = [one for one in bins if one.get("count")]
    left, right, top, bottom = 58.0, 14.0, 14.0, 44.0
    side = width - left - right

    def at(x: float, y: float) -> tuple[float, float]:
        return left + side * x, top + side * (1 - y)

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [line(*at(tick, 0), *at(tick, 1)), line(*at(0, tick), *at(1, tick))]
        parts.append(text(at(tick, 0)[0], top + side + 17, f"{tick:g}", "middle"))
        parts.append(text(left - 8, at(0, tick)[1] + 4, f"{tick:g}", "end"))
    parts.append(line(*at(0, 0), *at(1, 1), "var(--faint)", 'stroke-dasharray="4 4"'))
    dots = sorted(((one["mean_p"], one["share_yes"], int(one["count"])) for one in shown), key=lambda dot: dot[0])
    if len(dots) > 1:
        path = "L".join("{:.1f} {:.1f}".format(*at(x, y)) for x, y, _ in dots)
        parts.append(f'<path d="M{path}" fill="none" stroke="{ink}" stroke-opacity=".45" stroke-width="1.5"/>')
    most = max((count for *_, count in dots), default=1)
    for x, y, count in dots:
        low, high = wilson(min(round(y * count), count), count) or (y, y)
        parts.append(line(*at(x, low), *at(x, high), ink, 'stroke-width="2" stroke-opacity=".4"'))
    for x, y, count in dots:
        radius = max(SMALLEST, LARGEST * math.sqrt(count / most))
        words = f"{count} answers: probability {x:.3f}, yes in {y:.3f}"
        cx, cy = at(x, y)
        parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{radius:.1f}" fill="{ink}" fill-opacity=".78" '
                     f'stroke="var(--paper)"><title>{words}</title></circle>')  # fmt: skip
    parts.append(text(left + side / 2, top + side + 37, "probability of yes", "middle"))
    # turned around its own middle, beside the axis
    parts.append(f'<g transform="rotate(-90 12 {top + side / 2:.1f})">'
                 f"{text(12, top + side / 2 + 4, 'share of yes', 'middle')}</g>")  # fmt: skip
    return svg(width, top + side + bottom, parts, "Reliability diagram")
