"""Mini MLVU (`sy1998/MLVU_dev`, `sy1998/MLVU_Test`): no README, the options in the question, names without suffix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers.mini_benchmarks._clips import clip, zipped
from tests.helpers.mini_benchmarks._hub_copy import HubCopy
from tests.helpers.mini_benchmarks._registry import mini

DEV, TEST = "sy1998/MLVU_dev", "sy1998/MLVU_Test"


def mlvu_row(video: str, number: int, task_type: str, answer: str, options: list[str]) -> dict[str, Any]:
    lines = "".join(f"({chr(65 + place)}) {option}\n" for place, option in enumerate(options))
    return {
        "video_name": video,
        "duration": 467.98,
        "question": f"What happens in {task_type} {number}?\n{lines}",
        "candidates": options,
        "answer": answer,
        "task_type": task_type,
        "question_id": f"Q{number}",
    }


def write(root: Path, repo: str, folder: str, rows: list[dict[str, Any]]) -> None:
    from datasets import Value

    text = Value("string")
    names = ("video_name", "question", "answer", "task_type", "question_id")
    features = dict.fromkeys(names, text) | {"duration": Value("float64"), "candidates": [text]}
    copy = HubCopy(root, repo)
    copy.table(rows, features, split="test", folder=folder)
    (copy.folder / "README.md").unlink()  # neither repository has one
    copy.file("video_part_1.zip", zipped({"needle_1.mp4": clip(4), "ego_2.mp4": clip(8)}))


@mini("mlvu")
def write_mlvu(root: Path) -> None:
    four = ["Delivers a product", "Shakes the woman's hand", "Takes the card", "Points at something"]
    rows = [
        mlvu_row("needle_1.mp4", 0, "needle", "A", four),
        mlvu_row("needle_1.mp4", 1, "needle", "B", four),
        mlvu_row("needle_1.mp4", 2, "needle", "C", four),
        mlvu_row("ego_2", 0, "ego", "D", ["red", "red", "blue", "green"]),  # two options with the same text
        mlvu_row("ego_2", 0, "summary", "A man walks.", []),
    ]
    write(root, DEV, "mlvu", rows)


@mini("mlvu_test")
def write_mlvu_test(root: Path) -> None:
    six = ["Fighting", "Shoplifting", "Arrest", "Normal", "Shooting", "Vandalism"]
    rows = [
        mlvu_row("needle_1.mp4", 0, "anomaly_reco", "F", six),
        mlvu_row("ego_2.mp4", 0, "sportsQA", "B", six),
    ]
    write(root, TEST, "mlvu_test", rows)
