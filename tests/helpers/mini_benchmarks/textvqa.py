"""Mini TextVQA (`lmms-lab-encoder/textvqa`)."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.mini_benchmarks._hub_copy import HubCopy, picture
from tests.helpers.mini_benchmarks._registry import mini

ROWS = [
    (
        "what is the brand of this camera?",
        ["dakota"] * 6 + ["dakota digital", "clos culombu", "nous les gosses", "bike"],
    ),
    ("What does the White Circle of NASA say?", ["open"] * 10),
    ("who is this copyrighted by?", ["simon clancy"] * 3 + ["clancy"] * 7),
]


@mini("textvqa")
def write(root: Path) -> None:
    from datasets import Image, Value

    text, number = Value("string"), Value("int32")
    features = {
        "image_id": text,
        "question_id": number,
        "question": text,
        "question_tokens": [text],
        "image": Image(),
        "image_width": number,
        "image_height": number,
        "flickr_original_url": text,
        "flickr_300k_url": text,
        "answers": [text],
        "image_classes": [text],
        "set_name": text,
        "ocr_tokens": [text],
    }
    rows = [
        {
            "image_id": "003a8ae2ef43b901" if place < 2 else "00685bc495504d61",
            "question_id": 34602 + place,
            "question": question,
            "question_tokens": question.lower().strip("?").split(),
            "image": picture(1 if place < 2 else 2),
            "image_width": 1024,
            "image_height": 664,
            "flickr_original_url": "https://example.org/o.jpg",
            "flickr_300k_url": "https://example.org/z.jpg",
            "answers": answers,
            "image_classes": ["Camera"],
            "set_name": "val",
            "ocr_tokens": ["DAKOTA"],
        }
        for place, (question, answers) in enumerate(ROWS)
    ]
    HubCopy(root, "lmms-lab-encoder/textvqa").table(rows, features, split="validation")
