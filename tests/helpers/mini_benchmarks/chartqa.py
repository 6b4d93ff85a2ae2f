"""Mini ChartQA (`lmms-lab-encoder/ChartQA`)."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.mini_benchmarks._hub_copy import HubCopy, picture
from tests.helpers.mini_benchmarks._registry import mini

ROWS = [
    ("human_test", "How many food item is shown in the bar graph?", "14", 1),
    ("human_test", "Is the value of Favorable more than 50?", "Yes", 2),
    ("augmented_test", "What was the population in 2019?", "50.5", 3),
]


@mini("chartqa")
def write(root: Path) -> None:
    from datasets import Image, Value

    text = Value("string")
    features = {"type": text, "question": text, "answer": text, "image": Image()}
    rows = [
        {"type": half, "question": question, "answer": answer, "image": picture(chart)}
        for half, question, answer, chart in ROWS
    ]
    HubCopy(root, "lmms-lab-encoder/ChartQA").table(rows, features, split="test")
