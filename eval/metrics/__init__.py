"""Metrics, one file each. `get_metric("anls")(prediction, references, **options)` returns the score of one sample."""

from __future__ import annotations

from eval.metrics.registry import Metric, metrics, register_metric
from eval.registry import discover

discover(__name__, __path__)
get_metric = metrics.get

__all__ = ["Metric", "get_metric", "metrics", "register_metric"]
