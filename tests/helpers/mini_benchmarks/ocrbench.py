"""Mini OCRBench (`echo840/OCRBench`): words, a question on a scene, a formula."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.mini_benchmarks._hub_copy import HubCopy, picture
from tests.helpers.mini_benchmarks._registry import mini

ROWS = [
    ("IIIT5K", "what is written in the image?", "Regular Text Recognition", ["CENTRE"]),
    ("WordArt", "what is written in the image?", "Artistic Text Recognition", ["Peace"]),
    ("TextVQA", " what is the price? ", "Scene Text-centric VQA", ["12.00", "$12.00"]),
    (
        "HME100k",
        "Please write out the expression of the formula in the image using LaTeX format.",
        "Handwritten Mathematical Expression Recognition",
        ["X^{2} + 1"],
    ),
]


@mini("ocrbench")
def write(root: Path) -> None:
    from datasets import Image, Value

    text = Value("string")
    features = {"dataset": text, "question": text, "question_type": text, "answer": [text], "image": Image()}
    rows = [
        {"dataset": source, "question": question, "question_type": kind, "answer": answers, "image": picture(place)}
        for place, (source, question, kind, answers) in enumerate(ROWS)
    ]
    HubCopy(root, "echo840/OCRBench").table(rows, features, split="test")
