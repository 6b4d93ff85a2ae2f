"""Small dataset folders for tests, good and bad."""

import json
from pathlib import Path

from PIL import Image


def record(sample_id: str, question: str = "What?", answer: str = "42", images: tuple[str, ...] = (), **extra) -> dict:
    items = [{"type": "image", "image": image} for image in images]
    return {
        "id": sample_id,
        "messages": [
            {"role": "user", "content": [*items, {"type": "text", "text": question}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ],
        **extra,
    }


def write_image(path: Path, color: tuple[int, int, int] = (200, 30, 60), size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def write_records(folder: Path, records: list[dict | str], name: str = "records.jsonl") -> Path:
    """Writes a line a record; strings are written as they are (broken lines)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [one if isinstance(one, str) else json.dumps(one) for one in records]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def good_folder(folder: Path, n: int = 20) -> Path:
    """`n` samples; two of three with an image, answers of different lengths."""
    records = []
    for i in range(n):
        images = ()
        if i % 3:
            write_image(folder / f"images/{i}.png", color=(i, 2 * i, 255 - i))
            images = (f"images/{i}.png",)
        records.append(record(f"s{i}", question="Q" * (i % 7 + 1), answer="A" * (i % 5 + 1), images=images))
    return write_records(folder, records)
