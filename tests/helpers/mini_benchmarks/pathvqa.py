"""Mini PathVQA (`flaviagiammarino/path-vqa`): image, question, answer."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.mini_benchmarks._hub_copy import HubCopy, picture
from tests.helpers.mini_benchmarks._registry import mini

ROWS = [
    ("where are liver stem cells (oval cells) located?", "in the canals of hering", 1),
    ("are bile duct cells shown here?", "yes", 1),
    ("is an artery shown?", "no", 2),
    ("how is the wall?", "thickened", 2),
]


@mini("pathvqa")
def write(root: Path) -> Path:
    """Returns the parquet file."""
    from datasets import Image, Value

    rows = [{"image": picture(shown), "question": asked, "answer": gold} for asked, gold, shown in ROWS]
    features = {"image": Image(), "question": Value("string"), "answer": Value("string")}
    return HubCopy(root, "flaviagiammarino/path-vqa").table(rows, features, split="test")
