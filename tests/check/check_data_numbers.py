"""The numbers `radio-vlm check-data` promises: how many pages a second it looks at, and that it finds the bad ones.

The files are made here: a few pages are encoded and copied, each copy with a comment of its own, so that no two files
are the same bytes. The command runs as a person runs it; the time of its checking phase is read off its progress bar.
"""

import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

COMMAND = "python tests/check/check_data_numbers.py"
FILES, DIFFERENT, TRUNCATED, SIZE = 1500, 30, 3, (1000, 1400)
TURNS = 3
# what tqdm leaves of a finished bar: "pages: 100%|███| 1500/1500 [00:01<00:00, 1043.21 samples/s]"
BAR = re.compile(rf"{FILES}/{FILES} \[[\d:]+<[\d:?]+, +([\d.]+) *(samples/s|s/ samples)\]")


def page(number: int) -> Image.Image:
    """Dark words of random widths on paper that is not quite white, as a scanner gives them."""
    chance = np.random.default_rng(number)
    pixels = chance.normal(246, 1, (SIZE[1], SIZE[0], 1)).repeat(3, axis=2)
    for y in range(60, SIZE[1] - 60, 30):
        x = 70
        while (x := x + int(chance.integers(8, 40))) < SIZE[0] - 150:
            end = x + int(chance.integers(15, 90))
            pixels[y : y + 18, x:end] = chance.choice([40, 90, 245], (18, end - x, 1), p=[0.4, 0.2, 0.4])
            x = end
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def pages(out: Path) -> Path:
    """A data folder of FILES questions, each on a file of its own; TRUNCATED of the files are cut in half."""
    folder = out / "pages"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    encoded = []
    for number in range(DIFFERENT):
        page(number).save(out / "page.jpg", quality=85)
        encoded.append((out / "page.jpg").read_bytes())
    rows = []
    for number in range(FILES):
        data = encoded[number % DIFFERENT]
        words = f"copy {number}".encode()
        comment = b"\xff\xfe" + (len(words) + 2).to_bytes(2, "big") + words
        data = data[:2] + comment + data[2:]
        is_cut = number % (FILES // TRUNCATED) == 1
        (folder / f"images/{number}.jpg").write_bytes(data[: len(data) // 2] if is_cut else data)
        rows.append({"id": str(number), "image": f"images/{number}.jpg", "question": "Which?", "answer": str(number)})
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def measured(folder: Path, out: Path, *flags: str) -> tuple[float, float, dict]:
    """(images a second of the checking phase, of the whole command, its report)."""
    words = [sys.executable, "-m", "vlm", "check-data", str(folder), *flags, "--json", str(out / "report.json")]
    start = time.perf_counter()
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    assert done.returncode == 1, done.stderr  # the truncated files
    (value, unit) = BAR.findall(done.stderr)[-1]
    rate = float(value) if unit == "samples/s" else 1 / float(value)
    return rate, FILES / seconds, json.loads((out / "report.json").read_text())


def check_data_numbers(out: Path) -> list[Number]:
    """All rows."""
    out.mkdir(parents=True, exist_ok=True)
    folder = pages(out)
    name, rows = f"check-data: {FILES} JPEG files of {SIZE[0]} x {SIZE[1]}", []
    for what, flags, target in (
        ("headers", (), ">= 200"),
        ("headers and duplicates by looks", ("--duplicates",), ""),
        ("decoded in full", ("--decode", "full"), ""),
    ):
        turns = [measured(folder, out, *flags) for _ in range(TURNS if target else 1)]
        rates, whole, reports = zip(*turns)
        rows.append(Number(f"{name}, {what}, images a second", target, statistics.median(rates), COMMAND))
        rows.append(Number(f"{name}, {what}, with the start of the command", "", statistics.median(whole), COMMAND))
        found = reports[0]["reasons"].get("truncated_image", 0)
        rows.append(Number(f"{name}, {what}, truncated files found of {TRUNCATED}", f">= {TRUNCATED}", found, COMMAND))
        if "--duplicates" in flags:
            groups = reports[0]["duplicates"]["groups"]
            missed = abs(groups - DIFFERENT)
            rows.append(Number(f"{name}, groups of copies missed or too many", "<= 0", missed, COMMAND))
    shutil.rmtree(folder)  # some hundred megabytes
    return rows


if __name__ == "__main__":
    print(table(check_data_numbers(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/check/check_data"))))
