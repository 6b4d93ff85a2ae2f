"""A small labelled set on disk: CT slices, chest X-rays, MR slices of invented patients, with planted identifiers."""

import json
import random
from pathlib import Path
from typing import Any

from training.data.synthetic import slices, xrays

PLANTED = {
    "PatientName": "Zebrowski^Annabel",
    "PatientID": "MRN-4711-88",
    "PatientBirthDate": "19530617",
    "AccessionNumber": "ACC90210",
    "InstitutionName": "Saint Nowhere Hospital",
    "StudyDescription": "Zebrowski follow-up",
    "SeriesDescription": "asked by Quackenbush",
    "ReferringPhysicianName": "Quackenbush^Igor",
    "StudyDate": "20190304",
}
WORDS = ("Zebrowski", "Annabel", "MRN-4711", "19530617", "ACC90210", "Nowhere", "Quackenbush", "20190304")


def write_set(folder: Path, ct: int = 4, dx: int = 4, mr: int = 2, split: str | None = "train") -> list[dict[str, Any]]:
    """Write `ct` + `dx` + `mr` images and their `images.jsonl`; returns its rows. Each image has its own patient."""
    rng = random.Random("labelled")
    (folder / "zebrowski").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(ct):
        item = slices.random_slice(rng, 96, number % 4)
        file = f"zebrowski/ct{number}.dcm"
        slices.write_dicom(folder / file, slices.render(item, number), item, number, "t")
        labels: dict[str, Any] = {"number": len(item.lesions)}
        if item.lesions:
            labels |= {"side": item.lesions[0].side(item.size), "size": item.lesions[0].mm}
        rows.append({"id": f"ct-{number}", "image": file, "labels": labels, "report": f"{len(item.lesions)} lesions."})
        rows[-1]["qa"] = [{"question": "Table?", "answer": item.table, "kind": "table"}]
    for number in range(dx):
        item = xrays.random_xray(rng, xrays.random_patient(rng))
        file = f"zebrowski/dx{number}.dcm"
        xrays.write_dicom(folder / file, xrays.render(item, number), "t", number)
        rows.append({"id": f"dx-{number}", "image": file, "labels": item.findings(), "report": "A chest of Zebrowski."})
    for number in range(mr):
        item = slices.random_slice(rng, 96, 0)
        file = f"zebrowski/mr{number}.dcm"
        slices.write_dicom(folder / file, slices.render(item, number), item, number, "m")
        plant(folder / file, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
        rows.append({"id": f"mr-{number}", "image": file})
    for number, row in enumerate(rows):
        plant(folder / row["image"])
        row["patient"] = f"MRN-4711-{number}"
        if split:
            row["split"] = split
    write_rows(folder, rows)
    return rows


def plant(path: Path, **fields: str) -> None:
    """Put identifiers into a DICOM file's header."""
    import pydicom

    data = pydicom.dcmread(path)
    for keyword, value in (PLANTED | fields).items():
        setattr(data, keyword, value)
    if "SOPClassUID" in fields:
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.save_as(path, enforce_file_format=True)


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def random_findings(folder: Path, seed: int = 0) -> Path:
    """A folder of weights with the expert FINDINGS, whose network is random."""
    import torch
    from safetensors.torch import save_file

    from vlm.experts.chest_xray_tiny import FILES, FOLDER, FORMAT_VERSION, LABELS, build_network

    (folder / FOLDER).mkdir(parents=True)
    torch.manual_seed(seed)
    save_file(build_network(width=4).state_dict(), folder / FOLDER / FILES[0])
    card = {"format_version": FORMAT_VERSION, "labels": LABELS, "width": 4}
    (folder / FOLDER / FILES[1]).write_text(json.dumps(card))
    return folder


def records_of(folder: Path) -> list[dict[str, Any]]:
    """The records of a dataset folder."""
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
