"""Mini PMC-VQA (`xmcmic/PMC-VQA`): both versions of its CSV files, each beside its archive of figures."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.mini_benchmarks._hub_copy import HubCopy, picture
from tests.helpers.mini_benchmarks._registry import mini

CHOICES = [f"Choice {letter}" for letter in "ABCD"]
COLUMNS_1 = ["Figure_path", "Question", "Answer", *CHOICES, "Answer_label"]
COLUMNS_2 = ["index", "Figure_path", "Caption", "Question", *CHOICES, "Answer", "split"]
UPTAKE = ["A:Diffuse uptake", "B:Focal uptake", "C:No uptake", "D:Cannot be said"]
ROWS_1 = [
    ["PMC1_F1.jpg", "What is the uptake pattern in the breast?", "Focal uptake", *UPTAKE, "B"],
    ["PMC1_F2.jpg", "Which organ, if any?", "Liver", "A:Liver", "B:Lung", "C:Heart", "D:None", "A"],
]
COLOURS = [" A: Green ", " B: Red ", " C: Light blue ", " D: Yellow"]
ROWS_2 = [
    [62, "PMC2_F1_11.jpg", "A cell, altered.", " What color is the Golgi complex? ", *COLOURS, "B", "test"],
    [63, "PMC2_F1_11.jpg", "A cell, altered.", " What color is the outline? ", *COLOURS, "D", "test"],
]


def table(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerows([columns, *rows])
    return stream.getvalue()


def archive(names: Sequence[str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as zipped:
        for number, name in enumerate(names, 1):
            zipped.writestr(name, picture(number)["bytes"])
    return stream.getvalue()


@mini("pmc_vqa")
def write_1(root: Path, rows: Sequence[Sequence] = ROWS_1) -> HubCopy:
    copy = HubCopy(root, "xmcmic/PMC-VQA")
    copy.file("test_clean.csv", table(COLUMNS_1, rows))
    copy.file("images.zip", archive(["images/PMC1_F1.jpg", "images/PMC1_F2.jpg"]))
    return copy


@mini("pmc_vqa_2")
def write_2(root: Path, rows: Sequence[Sequence] = ROWS_2) -> HubCopy:
    copy = HubCopy(root, "xmcmic/PMC-VQA")
    copy.file("test_2.csv", table(COLUMNS_2, rows))
    copy.file("images_2.zip", archive(["figures/PMC2_F1_11.jpg"]))
    return copy
