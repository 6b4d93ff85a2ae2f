"""Rules that read an option letter out of a response, one file an origin. `extractors.get("radio_vlm")` gives ours.

Harnesses disagree by points on the same responses because these rules disagree, so a result names its rule.
"""

from __future__ import annotations

from eval.metrics.mcq.registry import Extractor, extractors, register_extractor
from eval.registry import discover

discover(__name__, __path__)

__all__ = ["Extractor", "extractors", "register_extractor"]
