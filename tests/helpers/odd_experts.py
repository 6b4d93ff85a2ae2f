"""Experts that behave badly in ways of their own, and a way to talk to them. No test module: processes import it."""

import time
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from vlm.experts import Expert, ExpertCard, ExpertError, ExpertResult, ExpertSession

SIZE = 32
PATIENT = {
    "PatientName": "Zebrowski^Annabel Q",
    "PatientID": "MRN-4711-88",
    "PatientBirthDate": "19530617",
    "AccessionNumber": "ACC90210",
    "InstitutionName": "Saint Nowhere Hospital",
    "ReferringPhysicianName": "Quackenbush^Igor",
}


class Odd(Expert):
    """Does what its argument says; `built` counts constructions, `ended` runs that were stopped."""

    card = ExpertCard(
        "ODD", "CT", "any", "oddities",
        ("fine", "raise", "refuse", "leak", "exit", "spin", "sleep", "no text", "nan", "string", "empty", "zero",
         "other size", "fractions", "holes", "negative", "volume", "ragged", "long", "mask", "nothing", "stubborn"),
    )  # fmt: skip
    built: list[int] = []
    ended: list[str] = []

    def __init__(self, seconds: float = 0.0) -> None:
        self.built.append(1)
        time.sleep(seconds)

    def run(self, path: Path, arguments: tuple[str, ...]) -> ExpertResult:
        what = arguments[0] if arguments else "fine"
        name = str(pydicom.dcmread(path).get("PatientName", "")) if what in ("leak", "raise", "refuse") else ""
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[4:9, 4:9], mask[20:25, 20:28] = 1, 2
        labels = {"labels": {1: "liver", 2: "hepatic tumor"}}
        if what == "raise":
            raise RuntimeError(f"cannot read {path} of {name}")
        if what == "refuse":
            raise ExpertError(f"no good: {path} of {name}")
        if what == "exit":
            raise SystemExit(3)
        if what == "spin":
            try:
                while True:
                    pass
            finally:
                self.ended.append(what)
        if what == "sleep":
            time.sleep(4)
        while what == "stubborn":
            try:
                time.sleep(0.01)
            except BaseException:
                time.sleep(1.5)
                break
        results = {
            "leak": ExpertResult(f"the liver of {name} ({PATIENT['PatientID']}) in {path} is fine; lesion is 14 mm"),
            "no text": ExpertResult(float("nan")),
            "nan": ExpertResult(f"lesion of {float('nan')} mm"),
            "string": "just words",
            "empty": ExpertResult("x", np.zeros((0, 0))),
            "zero": ExpertResult("0 lesions", np.zeros((SIZE, SIZE))),
            "other size": ExpertResult("x", np.ones((8, 9), int)),
            "fractions": ExpertResult("x", mask * 0.5),
            "holes": ExpertResult("x", np.where(mask > 0, np.nan, 0)),
            "negative": ExpertResult("x", mask.astype(int) - 1),
            "volume": ExpertResult("x", np.ones((3, SIZE, SIZE), int)),
            "ragged": ExpertResult("x", [[1, 2], [3]]),
            "long": ExpertResult("word " * 100_000),
            "mask": ExpertResult("two regions", mask, labels),
            "nothing": ExpertResult("", np.zeros((SIZE, SIZE), int)),
        }
        return results.get(what, ExpertResult("all fine"))


def write_image(path: Path, **fields: object) -> Path:
    """A small CT file of a person who does not exist; `fields` replace header fields, None removes one."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    defaults = {
        **PATIENT, "SOPClassUID": CTImageStorage, "SOPInstanceUID": generate_uid(), "Modality": "CT", "Rows": SIZE,
        "Columns": SIZE, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0,
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "PixelData": bytes(range(256)) * 4,
        "PixelSpacing": [1, 1], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    } | fields  # fmt: skip
    for keyword, value in defaults.items():
        if value is not None:
            setattr(data, keyword, value)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.save_as(path, enforce_file_format=True)
    return path


def write_picture(path: Path, size: tuple[int, int] = (SIZE, SIZE)) -> Path:
    Image.new("L", size).save(path)
    return path


def asked(*files: Path, question: str = "Side?") -> list[dict]:
    """One user turn with these images."""
    content = [*({"type": "image", "image": str(file)} for file in files), {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def ask(session: ExpertSession, messages: list[dict], *replies: str):
    """The transcript of a conversation in which the model says `replies`, then `done`."""
    script = iter([*replies, *["done"] * 9])
    return session.run(lambda batch: [next(script)], messages)
