"""The labelled images of the medical stage: patients with CT slices, chest X-rays or MR slices, and the truth of each.

Not conversations: `radio-vlm make-expert-data` asks the experts and writes those. Each line of `images.jsonl` holds one
image, its patient, its labels (true answers by topic), plain questions that need no expert, and a report. Of twenty
images nine are CT (the expert LESIONS reads them), eight X-rays (FINDINGS), three MR, which no embedded expert reads.
In some CT files the header says nothing of the orientation: the expert fails there, and the model has to say so.
"""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from training.data.synthetic import mr_slices, slices, xrays
from training.data.synthetic.folder import generator
from training.data.synthetic.registry import register_corpus
from training.data.synthetic.split_hash import split_of

TURN = ("CT", "DX", "CT", "DX", "MR", "CT", "DX") * 2 + ("CT", "DX", "MR", "CT", "DX", "CT")
SILENT_HEADERS = 0.1  # share of CT files without orientation
PICTURES = 2  # of one patient, at most, in X-rays and MR
SEQUENCES = tuple(mr_slices.CONTRASTS)


class Drawing:
    """One image: `write(path, series, number)` makes its file; the rest goes into its line."""

    def __init__(
        self,
        write: Callable[[Path, str, int], None],
        labels: dict[str, Any],
        questions: list[tuple[str, str, str]],
        report: str,
    ):
        self.write, self.labels, self.report = write, labels, report
        self.questions = [dict(zip(("kind", "question", "answer"), one)) for one in questions]


def ct(rng: random.Random, split: str, size: int) -> list[Drawing]:
    """A patient with one CT slice of zero to three lesions."""
    lesions = rng.randint(0, 3)
    while True:
        item = slices.random_slice(rng, size, lesions)
        if split_of(repr(item.content())) == split:
            break
    silent, noise = rng.random() < SILENT_HEADERS, rng.getrandbits(32)
    labels: dict[str, Any] = {"number": len(item.lesions)}
    said = f"{len(item.lesions)} lesions" if len(item.lesions) != 1 else "1 lesion"
    if item.lesions:
        labels |= {"side": item.lesions[0].side(size), "size": item.lesions[0].mm}
        said += f"; largest: {labels['side']}, {labels['size']} mm"

    def write(path: Path, series: str, number: int) -> None:
        slices.write_dicom(path, slices.render(item, noise), item, number, series)
        if silent:
            _forget(path, "ImageOrientationPatient")

    asked = [("table", "Table?", "yes" if item.table else "no"), ("window", "Window?", item.window)]
    if rng.random() < 0.25:  # seldom: the other modalities ask for little else
        asked.append(("modality", "Modality?", "CT"))
    return [Drawing(write, {} if silent else labels, asked, said)]


def dx(rng: random.Random, split: str, size: int) -> list[Drawing]:
    """A patient with one or two chest X-rays, each with its own findings."""
    while True:
        patient = xrays.random_patient(rng)
        if split_of(patient.content()) == split:
            break
    drawings = []
    for _ in range(rng.randint(1, PICTURES)):
        item, noise = xrays.random_xray(rng, patient), rng.getrandbits(32)

        def write(path: Path, series: str, number: int, item: xrays.Xray = item, noise: int = noise) -> None:
            xrays.write_dicom(path, xrays.render(item, noise, size), series, number)

        found = item.findings()
        said = "\n".join(f"{name}: {'yes' if there else 'no'}" for name, there in found.items())
        drawings.append(Drawing(write, dict(found), [("modality", "Modality?", "DX")], said))
    return drawings


def mr(rng: random.Random, split: str, size: int) -> list[Drawing]:
    """A patient with one or two MR slices of different sequences."""
    while True:
        head = mr_slices.random_head(rng)
        if split_of(head.content()) == split:
            break
    drawings = []
    for sequence in rng.sample(SEQUENCES, rng.randint(1, PICTURES)):
        noise = rng.getrandbits(32)

        def write(path: Path, series: str, number: int, sequence: str = sequence, noise: int = noise) -> None:
            mr_slices.write_dicom(path, mr_slices.render(head, sequence, noise, size), sequence, series, number)

        asked = [("sequence", "Sequence?", sequence), ("modality", "Modality?", "MR")]
        drawings.append(Drawing(write, {}, asked, f"MR, {sequence}"))
    return drawings


def _forget(path: Path, keyword: str) -> None:
    import pydicom

    data = pydicom.dcmread(path)
    del data[keyword]
    data.save_as(path, enforce_file_format=True)


def lines(out: Path, split: str, seed: int, n: int, size: int) -> Iterator[dict[str, Any]]:
    """Write `n` DICOM files below `out/dicom` and yield their lines; images of one patient follow each other."""
    rng, draw = generator("patients", split, seed), {"CT": ct, "DX": dx, "MR": mr}
    (out / "dicom").mkdir(parents=True, exist_ok=True)
    count, patients = 0, 0
    owed = dict.fromkeys(draw, 0)  # images of a modality beyond its turns: a patient may bring two at once
    while count < n:
        modality = TURN[patients % len(TURN)]
        patients += 1
        if owed[modality] > 0:
            owed[modality] -= 1
            continue
        drawings = draw[modality](rng, split, size)[: n - count]
        owed[modality] += len(drawings) - 1
        for drawing in drawings:
            file = f"dicom/{count:06d}.dcm"
            drawing.write(out / file, f"patients-{split}-{seed}", count)
            yield {
                "id": f"{modality.lower()}-{split}-{seed}-{count:06d}",
                "image": file,
                "patient": f"{split}-{seed}-{patients:06d}",
                "split": split,
                "labels": drawing.labels,
                "qa": drawing.questions,
                "report": drawing.report,
            }
            count += 1


@register_corpus("patients")
def write(out: Path, split: str, seed: int, n: int, *, size: int = 96) -> None:
    """Write `n` labelled images of `split`, `size` × `size` pixels, to the folder `out`."""
    if size < 64:
        raise ValueError(f"size must be at least 64, not {size}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    with open(out / "images.jsonl", "w", encoding="utf-8") as file:
        for line in lines(out, split, seed, n, size):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    header = {"name": "synthetic_patients", "task": "patients", "split": split, "seed": seed, "n": count}
    (out / "dataset.json").write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
