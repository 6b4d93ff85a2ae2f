"""What the video and medical corpora share: a generator a split and seed, and how a dataset folder is written."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from training.data.synthetic.registry import check_split


def generator(name: str, split: str, seed: int) -> random.Random:
    """The random generator of one corpus, split and seed. Raises `ValueError` for an unknown split."""
    return random.Random(f"{name} {check_split(split)} {seed}")


def write_folder(out: Path, name: str, split: str, seed: int, records: Iterable[dict[str, Any]]) -> None:
    """Write `records.jsonl` and, last, `dataset.json` (so that a folder with it is complete)."""
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    with open(out / "records.jsonl", "w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    header = {"name": f"synthetic_{name}", "task": name, "split": split, "seed": seed, "n": count}
    (out / "dataset.json").write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
