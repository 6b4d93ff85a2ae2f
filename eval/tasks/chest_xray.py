"""Findings on chest X-rays: ChestX-ray14 (Wang et al., CVPR 2017), one yes/no question per finding and image.

The figures are macro and micro F1 of the positive class, as VILA-M3 reports for its yes/no questions on chest X-rays
(fewer findings, other labels: not comparable number by number), beside accuracy and the share of answers that are
neither yes nor no. Such answers assert nothing and are counted; VILA-M3 takes them as "no". The first yes/no word of an
answer counts. Sub-scores are per finding. ChestX-ray14's own labels were read from reports by a program and are noisy.

The data has no hub repository of record; it is read from a folder `chest_xray` in the layout of the NIH's release:
`Data_Entry_2017*.csv` (or .csv.gz; columns "Image Index", "Finding Labels" such as `Cardiomegaly|Effusion`,
"Patient ID"), `test_list.txt` (the official test images, one name a line) and the pictures in `images/` or
`images_001/images/` … Another collection is asked the same way once it is written like that.
Images of one patient share a group. The prompt is ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from eval.aggregates import Aggregate, InvalidRate, LabelF1, Mean
from eval.controls import IMAGES_EXCHANGED
from eval.data import Sample
from eval.local_files import BadRow, csv_rows, media_file
from eval.media_store import MediaStore
from eval.sources import DataPlaces, Source
from eval.tasks._pictures import pictures_or_problem, with_problem
from eval.tasks.benchmark import Benchmark
from eval.tasks.registry import register_task

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
NO_FINDING = "No Finding"
TABLE, LIST = "Data_Entry_2017*.csv*", "test_list.txt"


@register_task
class ChestXray(Benchmark):
    name = "chest_xray"
    medical = True
    source = Source("chest_xray", split="test")
    prompt = "Does this chest X-ray show {finding}?\nAnswer yes or no."
    metrics = ("exact_match_closed.llava_med",)
    max_new_tokens = 16
    controls = (IMAGES_EXCHANGED,)
    calibrated = True
    figures_by_kind = ("f1_macro", "accuracy", "invalid_rate")

    @classmethod
    def rows(cls, places: DataPlaces, limit: int | None) -> Iterable[dict[str, Any]]:
        """One row per image of the test list, which knows its folders. Raises FileNotFoundError for what is missing."""
        folder = cls.source.local_folder(places.root, cls.name)
        if folder is None:
            raise FileNotFoundError(
                f"task {cls.name}: no folder {Path(places.root) / cls.source.repo}. It holds a copy of ChestX-ray14"
                f" (from the NIH Clinical Center) or data in its layout: {TABLE}, {LIST}, images/"
            )
        tables = sorted(folder.glob(TABLE))
        if len(tables) != 1:
            found = ", ".join(table.name for table in tables) or "none"
            raise FileNotFoundError(f"task {cls.name}: needs one file {TABLE} in {folder}, found {found}")
        if not (folder / LIST).is_file():
            raise FileNotFoundError(
                f"task {cls.name}: no {LIST} in {folder}. It names the images to ask about, one a line; without it the"
                " training images would be asked too"
            )
        pictures = [folder / "images", *sorted(folder.glob("images_*/images")), *sorted(folder.glob("images_*"))]
        pictures = [path for path in pictures if path.is_dir()]
        names = [name.strip() for name in (folder / LIST).read_text(encoding="utf-8-sig").splitlines() if name.strip()]
        wanted = set(names[:limit])
        labelled = {
            row["Image Index"]: row for row in map(_checked, csv_rows(tables[0])) if row["Image Index"] in wanted
        }
        for name in names[:limit]:
            row = labelled.get(name) or BadRow(f"{name}: in {LIST}, but not in {tables[0].name}")
            row["folders"] = pictures
            yield row

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        name = row["Image Index"]
        positive = findings_of(row["Finding Labels"], name)
        picture, problem = pictures_or_problem(lambda: [store.save(media_file(row["folders"], name))])
        for finding in FINDINGS:
            words = finding.replace("_", " ").lower()
            sample = cls.sample(
                f"{Path(name).stem}-{finding}",
                [*picture, cls.prompt.format(finding=words)],
                ["yes" if finding in positive else "no"],
                kind=finding,
                group=str(row.get("Patient ID") or name),
            )
            yield with_problem(sample, problem)

    def aggregates(self) -> dict[str, Aggregate]:
        return {
            "f1_macro": LabelF1("macro", FINDINGS, by="kind", name="f1_macro"),
            "f1_micro": LabelF1("micro", FINDINGS, by="kind", name="f1_micro"),
            "accuracy": Mean("exact_match_closed.llava_med", "accuracy"),
            "invalid_rate": InvalidRate(by="kind"),
        }


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table; a broken one is left to the image that misses it. Raises ValueError for another table."""
    if isinstance(row, BadRow):
        return {"Image Index": None}
    if "Image Index" not in row or "Finding Labels" not in row:
        raise ValueError(f"{TABLE} has no columns 'Image Index' and 'Finding Labels', but: {', '.join(row)}")
    return row


def findings_of(labels: str, name: str) -> set[str]:
    """`"Cardiomegaly|Effusion"` as a set; `"No Finding"` is the empty one. Raises ValueError for an unknown finding."""
    found = {label.strip() for label in labels.split("|")} - {NO_FINDING}
    if unknown := sorted(found - set(FINDINGS)):
        raise ValueError(f"{name}: unknown finding {', '.join(map(repr, unknown))}; known: {', '.join(FINDINGS)}")
    return found
