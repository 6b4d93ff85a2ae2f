"""Equality of short medical answers under each public rule, as metrics of their own: `exact_match_closed.<rule>`.

So a results row holds several of them, and each stands under its name. What a rule does: `exact_match_closed`.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.metrics.exact_match_closed import exact_match_closed
from eval.metrics.registry import Metric, register_metric


def _under(rule: str) -> Metric:
    def score(prediction: str, references: Sequence[str], dataset: str | None = None) -> float:
        return exact_match_closed(prediction, references, rule=rule, dataset=dataset)

    score.__doc__ = f"`exact_match_closed` with `rule={rule!r}`."
    return score


for _rule in ("llava_med", "slake", "strict", "vila_m3"):
    register_metric(f"exact_match_closed.{_rule}")(_under(_rule))
