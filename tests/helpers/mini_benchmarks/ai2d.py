"""Mini AI2D, with masked labels (`lmms-lab-encoder/ai2d`) and without (`Efficient-Large-Model/ai2d-no-mask`)."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.mini_benchmarks._hub_copy import HubCopy, picture
from tests.helpers.mini_benchmarks._registry import mini

ROWS = [
    ("which of these define dairy item", ["c", "D", "b", "a"], "1", 1),
    ("What eats the frog?", ["snake", "grass", "hawk", "snake"], "2", 1),
    ("What is at the top?", ["hawk", "frog", "sun", "grass"], "0", 2),
]


def write_copy(root: Path, repo: str) -> None:
    from datasets import Image, Value

    text = Value("string")
    features = {"question": text, "options": [text], "answer": text, "image": Image()}
    rows = [
        {"question": question, "options": options, "answer": answer, "image": picture(diagram)}
        for question, options, answer, diagram in ROWS
    ]
    HubCopy(root, repo).table(rows, features, split="test")


@mini("ai2d")
def write_masked(root: Path) -> None:
    write_copy(root, "lmms-lab-encoder/ai2d")


@mini("ai2d_no_mask")
def write_no_mask(root: Path) -> None:
    write_copy(root, "Efficient-Large-Model/ai2d-no-mask")
