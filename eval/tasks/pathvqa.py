"""PathVQA (He et al., 2020): questions on pathology images from textbooks; about half of them are yes/no questions.

Test split of the hub's copy `flaviagiammarino/path-vqa` (image, question, answer). It states no answer types: they are
derived from the gold answer (yes/no: closed), which is also how VILA-M3 selects the questions of its PathVQA figure,
`closed_accuracy_vila_m3` (lower-case equality, nothing stripped, over yes/no questions). Open questions: token recall.
Prompt and limit are those of lmms-eval's SLAKE, since no harness defines them here. Questions about one image share a
group, known by the picture's content.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eval.data import Sample
from eval.media_store import MediaStore
from eval.sources import DataPlaces, Source
from eval.tasks.medical_vqa import CLOSED, MedicalVQA, answer_type_of
from eval.tasks.registry import register_task


@register_task
class PathVQA(MedicalVQA):
    name = "pathvqa"
    source = Source("flaviagiammarino/path-vqa", split="test")

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        question, answer = row["question"], row["answer"]
        yield cls.question(
            f"pathvqa-{number}",
            lambda: store.save(row["image"]),
            question,
            answer,
            kind="yes/no" if answer_type_of(None, answer)[0] == CLOSED else "open",
            scoring={"dataset": "pathvqa"},
        )
