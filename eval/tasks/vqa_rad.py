"""VQA-RAD (Lau et al., Scientific Data 2018): questions of clinicians on radiology images, CC0.

Read from the hub's parquet copy (`flaviagiammarino/vqa-rad`: image, question, answer; test split), or from a folder in
the layout of the QA files: `testset.json` (a list of qid, image_name, image_organ, modality, question, question_type,
phrase_type, answer, answer_type) beside `images/`. Counted in those files: 451 test questions on 203 images, 272 of
them closed, 179 open. `answer_type` may be "CLOSED " with a blank, answers may be integers (both are in the training
file).

The hub copy does not state answer types; they are then derived from the gold answer (yes/no: closed), which makes 251
closed and 200 open of the same test set: 21 closed questions have another answer ("Left", "MRI"). The two are not the
same figure; `answer_type_from` in each row and in the results says which it is.

Test images also occur in the training set: the official split is by question, so a model trained on it has seen them.
No harness defines a prompt or limit for this benchmark; both are those of lmms-eval's SLAKE. VILA-M3's VQA-RAD figure
is `closed_accuracy_vila_m3` over another selection of the closed questions. Questions about one image share a group.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eval.data import Sample
from eval.local_files import json_rows, media_file
from eval.media_store import MediaStore
from eval.sources import DataPlaces, Source
from eval.tasks.medical_vqa import MedicalVQA
from eval.tasks.registry import register_task


@register_task
class VQARad(MedicalVQA):
    name = "vqa_rad"
    source = Source("flaviagiammarino/vqa-rad", split="test")
    columns = (*MedicalVQA.columns, "question_type", "phrase_type", "modality")

    @classmethod
    def rows(cls, places: DataPlaces, limit: int | None) -> Iterable[dict[str, Any]]:
        """Rows of the hub's copy, or those of a QA file, which know the folder of their pictures.

        Raises ValueError where two QA files could be meant.
        """
        local = cls.source.local_folder(places.root, cls.name)
        files = sorted(local.glob("*testset.json")) if local else []
        if len(files) > 1:
            raise ValueError(f"task {cls.name}: several QA files in {local}: {', '.join(f.name for f in files)}")
        if not files:
            yield from super().rows(places, limit)
        for row in json_rows(files[0]) if files else ():
            row["folder"] = files[0].parent / "images"
            yield row

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        if "folder" not in row:
            question, answer = row["question"], row["answer"]
            yield cls.question(f"vqa_rad-{number}", lambda: store.save(row["image"]), question, answer)
            return
        question, name = row["question"], row["image_name"]
        yield cls.question(
            row["qid"],
            lambda: store.save(media_file([row["folder"]], name)),
            question,
            row["answer"],
            answer_type=row["answer_type"],
            kinds=kinds_of(row),
            group=name,
            question_type=row.get("question_type"),
            phrase_type=row.get("phrase_type"),
            modality=row.get("modality"),
        )


def kinds_of(row: dict[str, Any]) -> list[str]:
    """Organ and modality, e.g. `["chest", "modality X-Ray"]`; blanks in the columns do not count."""
    organ, modality = (str(row.get(column) or "").strip() for column in ("image_organ", "modality"))
    return [name for name in (organ.lower(), f"modality {modality}" if modality else "") if name]
