"""Mini report collections: `annotation.json` as R2Gen has it, and `test.jsonl` with findings and impression."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.helpers.mini_benchmarks._hub_copy import picture
from tests.helpers.mini_benchmarks._registry import mini

NORMAL = "The heart is normal in size. There is a small left pleural effusion."
CLEAR = "The lungs are clear. No pneumothorax."
STUDIES = [
    {"id": "CXR1_IM-0001", "report": NORMAL, "image_path": ["CXR1_IM-0001/0.png", "CXR1_IM-0001/1.png"]},
    {"id": "CXR2_IM-0652", "report": CLEAR, "image_path": ["CXR2_IM-0652/0.png"]},
]


def write_images(folder: Path) -> None:
    for number, name in enumerate(["CXR1_IM-0001/0.png", "CXR1_IM-0001/1.png", "CXR2_IM-0652/0.png"], 1):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number)["bytes"])


@mini("report_generation")
def write(root: Path, studies: list[dict[str, Any]] = STUDIES) -> Path:
    """Returns the folder."""
    folder = root / "report_generation"
    write_images(folder)
    train = [{"id": "CXR9", "report": "Not asked.", "image_path": ["CXR9/0.png"], "split": "train"}]
    test = [{**study, "split": "test"} for study in studies]
    (folder / "annotation.json").write_text(json.dumps({"train": train, "val": [], "test": test}))
    return folder


def write_lines(root: Path, lines: list[str]) -> Path:
    """The layout with one study a line; returns the folder."""
    folder = root / "report_generation"
    write_images(folder)
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n")
    return folder
