"""Folders of parquet files to be streamed, every record with a number of its own."""

import io
from pathlib import Path

from PIL import Image


def parquet_folder(folder: Path, sizes: tuple[int, ...], row_group: int = 2, pictures: bool = False) -> Path:
    """A file of each of `sizes` rows, numbered on through all files: record n asks "Qn" and answers "An"."""
    import datasets

    turns = {"user": datasets.Value("string"), "assistant": datasets.Value("string")}
    columns = {"texts": datasets.List(turns)}
    if pictures:
        columns["images"] = datasets.List(datasets.Image())
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for part, size in enumerate(sizes):
        rows = range(first, first + size)
        data = {"texts": [[{"user": f"Q{n}", "assistant": f"A{n}" + "x" * (7 * n % 40)}] for n in rows]}
        if pictures:
            data["images"] = [[picture(n)] if n % 3 else [] for n in rows]
        table = datasets.Dataset.from_dict(data, features=datasets.Features(columns))
        table.to_parquet(folder / f"train-{part:05d}.parquet", batch_size=row_group)
        first += size
    return folder


def picture(n: int) -> dict:
    """A picture as a row of `datasets` holds it."""
    file = io.BytesIO()
    size = (64, 32 + n % 3 * 16)
    Image.new("RGB", size, (10 * n % 256, 255 - n % 256, 3 * n % 256)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def number(sample) -> int:
    """Which record of a `parquet_folder` a sample is."""
    return int(sample.messages[0]["content"][-1]["text"].removeprefix("Q"))
