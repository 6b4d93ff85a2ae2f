"""Made-up receipts for the tests of the check: black words on white, each with words of its own."""

import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tests.helpers.data_folders import record, write_records


def receipt(seed: int, size: tuple[int, int] = (300, 420)) -> Image.Image:
    """Lines of random words and figures; two seeds share the layout and nothing else."""
    chance = random.Random(seed)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for y in range(16, size[1] - 20, 17):
        words = "".join(chance.choice("abcdefghijklmnop    ") for _ in range(chance.randint(4, 38)))
        draw.text((chance.choice((14, 14, 60)), y), words, fill="black")
        draw.text((size[0] - 60, y), f"{chance.uniform(1, 99):.2f}", fill="black")
    return image


def noise(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture that does not compress, so that half of its file is half of the picture."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def receipts(folder: Path, seeds, start: str = "s", question: str = "What is the total of this?", **save) -> Path:
    """A data folder of one question on each receipt; `save`: options of Image.save."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for seed in seeds:
        receipt(seed).save(folder / f"images/{seed}.jpg", **save)
        rows.append(record(f"{start}{seed}", question, f"It is {seed} and no more.", (f"images/{seed}.jpg",)))
    return write_records(folder, rows)
