"""Labelled sets that are tables: a CSV of one's own, ChestX-ray14 as it is published. Rows are as in `images.jsonl`.

- A CSV with the columns `image` (or `volume`), `patient` and optionally `id`, `modality`, `report`, `split`; every
  other column is a label. Empty cells are no label; true, false, yes, no and numbers are read as such.
- `Data_Entry_2017.csv` (NIH ChestX-ray14): the 14 findings as yes or no; its lists `train_val_list.txt` and
  `test_list.txt` give the splits where they are there. Its pictures lie in `images/` or `images_*/images/`.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.data.expert_dialogues.labelled_set import FILE, KEYS, LabelledSetError

CHEST_XRAY14 = "Data_Entry_2017.csv"
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
NOTHING = "No Finding"
WORDS = {"true": True, "yes": True, "false": False, "no": False}
CELLS = ("id", "image", "volume", "modality", "patient", "report", "split")

Rows = Iterator[tuple[str, dict[str, Any]]]


def table_rows(folder: Path) -> Rows:
    """(file:line, row) of the table in a folder. Raises `LabelledSetError` where there is none or it cannot be used."""
    if (folder / CHEST_XRAY14).is_file():
        return chest_xray14_rows(folder)
    files = sorted(folder.glob("*.csv"))
    if len(files) != 1:
        found = f"several CSV files ({', '.join(file.name for file in files)})" if files else f"no {FILE} and no CSV"
        raise LabelledSetError(f"{folder}: {found}; expected {FILE}, one CSV with the columns image and patient, or "
                               f"{CHEST_XRAY14}")  # fmt: skip
    return csv_rows(files[0])


def csv_rows(file: Path) -> Rows:
    """A table whose columns are keys of a row, and labels."""
    for where, cells in _cells(file):
        row: dict[str, Any] = {name: text for name, text in cells.items() if name in CELLS and text}
        labels = {name: _value(text) for name, text in cells.items() if name not in KEYS and text}
        yield where, row | {"labels": labels}


def chest_xray14_rows(folder: Path) -> Rows:
    """ChestX-ray14's own table. Pictures are looked for once, in the folders that its archives unpack to."""
    places = {path.name: path for path in sorted((*folder.glob("images/*"), *folder.glob("images_*/images/*")))}
    splits = {}
    for name, split in (("train_val_list.txt", "train"), ("test_list.txt", "test")):
        if (folder / name).is_file():
            splits |= dict.fromkeys((folder / name).read_text(encoding="utf-8").split(), split)
    for where, cells in _cells(folder / CHEST_XRAY14):
        missing = [name for name in ("Image Index", "Finding Labels", "Patient ID") if not cells.get(name)]
        if missing:
            raise LabelledSetError(f"{where}: {missing[0]!r} is missing")
        name, found = cells["Image Index"], set(cells["Finding Labels"].split("|")) - {NOTHING}
        if unknown := sorted(found - set(FINDINGS)):
            raise LabelledSetError(f"{where}: unknown finding {unknown[0]!r}; known: {', '.join(FINDINGS)}")
        if name not in places:
            raise LabelledSetError(f"{where}: {name} is neither in images/ nor in images_*/images/")
        labels = {one.lower().replace("_", " "): one in found for one in FINDINGS}
        row = {"image": str(places[name].relative_to(folder)), "patient": cells["Patient ID"], "modality": "DX"}
        yield where, row | {"labels": labels} | ({"split": splits[name]} if name in splits else {})


def _cells(file: Path) -> Rows:
    """(file:line, column -> text) of a CSV with a line of names."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.DictReader(opened, strict=True)
        try:
            names = [name.strip() for name in reader.fieldnames or []]
            if lists := [name for name in ("labels", "qa") if name in names]:
                raise LabelledSetError(f"{file}:1: a column {lists[0]!r} cannot be read; every other column is a label")
            if len(set(names)) != len(names):
                raise LabelledSetError(f"{file}:1: a column's name stands there twice")
            reader.fieldnames = names
            for cells in reader:
                where = f"{file}:{reader.line_num}"
                if None in cells:
                    raise LabelledSetError(f"{where}: more cells than the {len(names)} columns")
                yield where, {name: (text or "").strip() for name, text in cells.items() if name}
        except (csv.Error, UnicodeDecodeError) as error:
            raise LabelledSetError(f"{file}:{reader.line_num}: not a readable CSV: {error}") from None


def _value(text: str) -> Any:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
