"""Mini ChestX-ray14 in the layout of the release: the table with its odd header, the test list, two image folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.helpers.mini_benchmarks._hub_copy import picture
from tests.helpers.mini_benchmarks._registry import mini

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,OriginalImage[Width,"
    "Height],OriginalImagePixelSpacing[x,y],"
)
LABELS = {
    "00000001_000.png": "Cardiomegaly",
    "00000001_001.png": "Cardiomegaly|Pleural_Thickening",
    "00000002_000.png": "No Finding",
    "00000003_000.png": "Hernia",  # a training image
}
TEST_LIST = list(LABELS)[:3]


@mini("chest_xray")
@mini("chest_xray_expert")
def write(root: Path, labels: dict[str, str] = LABELS, tested: Sequence[str] = TEST_LIST) -> Path:
    """Returns the folder."""
    folder = root / "chest_xray"
    for place, name in enumerate(LABELS):
        images = folder / f"images_{1 + place % 2:03d}" / "images"
        images.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(picture(place + 1)["bytes"])
    lines = [
        f"{name},{found},{place},{name.split('_')[0]},57,M,PA,2682,2749,0.143,0.143,"
        for place, (name, found) in enumerate(labels.items())
    ]
    (folder / "Data_Entry_2017.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    (folder / "test_list.txt").write_text("\n".join(tested) + "\n")
    return folder
