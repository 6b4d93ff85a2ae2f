"""Mini VQA-RAD: the hub's table (image, question, answer), and the QA files of the release beside `images/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.helpers.mini_benchmarks._hub_copy import HubCopy, picture
from tests.helpers.mini_benchmarks._registry import mini

ROWS = [
    ("is there evidence of an aortic aneurysm?", "yes", 1),
    ("what organ system is pictured?", "the left lung", 1),
    ("is the heart enlarged?", "no", 2),
    ("which side is the lesion on?", "Left", 2),
]


@mini("vqa_rad")
def write_hub_copy(root: Path) -> Path:
    """Returns the parquet file."""
    from datasets import Image, Value

    rows = [{"image": picture(shown), "question": asked, "answer": gold} for asked, gold, shown in ROWS]
    features = {"image": Image(), "question": Value("string"), "answer": Value("string")}
    return HubCopy(root, "flaviagiammarino/vqa-rad").table(rows, features, split="test")


def original_row(qid: int, image: int, question: str, answer: Any, answer_type: str, **other: Any) -> dict[str, Any]:
    return {
        "qid": qid,
        "image_name": f"synpic{image}.jpg",
        "image_organ": "CHEST",
        "answer": answer,
        "answer_type": answer_type,
        "question_type": "PRES",
        "question": question,
        "phrase_type": "freeform",
        "modality": "X-Ray",
        **other,
    }


ORIGINAL = [
    original_row(11, 1, "Is there evidence of an aortic aneurysm?", "yes", "CLOSED"),
    original_row(12, 1, "Is the heart enlarged? ", "No", "CLOSED "),
    original_row(13, 2, "Which side is affected?", "Left", "CLOSED", image_organ="HEAD", modality="MRI"),
    original_row(14, 2, "How many gallstones are seen?", 4, "OPEN", image_organ="ABD", modality="CT"),
    original_row(15, 2, "What is under the right hemidiaphragm?", "Free air", "OPEN"),
]


def write_original(root: Path, rows: list[Any] = ORIGINAL) -> Path:
    """The layout of the release in `root/vqa_rad`; returns that folder."""
    folder = root / "vqa_rad"
    (folder / "images").mkdir(parents=True)
    (folder / "testset.json").write_text(json.dumps(rows))
    (folder / "trainset.json").write_text(json.dumps(rows[:1]))
    for number in (1, 2):
        (folder / f"images/synpic{number}.jpg").write_bytes(picture(number)["bytes"])
    return folder
