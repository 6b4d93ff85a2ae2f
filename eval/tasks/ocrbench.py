"""OCRBench (Liu et al., 2023): 1000 questions of ten types on text in pictures; an answer must contain the gold text.

Test split, repository, prompt (the bare question) and limit of lmms-eval 0.7.3; VLMEvalKit asks the same and does not
fold full-width letters. The field reports POINTS, the number of right answers out of 1000, here beside the mean and for
each type; "Text Recognition" sums its six types as the benchmark's table does. With `--limit` points are out of `n`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from eval.controls import IMAGES_EXCHANGED
from eval.data import Sample
from eval.media_store import MediaStore
from eval.sources import DataPlaces, Source
from eval.tasks.base import Row
from eval.tasks.benchmark import Benchmark, image, pictures_group
from eval.tasks.registry import register_task

TEXT_RECOGNITION = "Text Recognition"
RECOGNITION_TYPES = (
    "Regular Text Recognition",
    "Irregular Text Recognition",
    "Artistic Text Recognition",
    "Handwriting Recognition",
    "Digit String Recognition",
    "Non-Semantic Text Recognition",
)


@register_task
class OCRBench(Benchmark):
    name = "ocrbench"
    source = Source("echo840/OCRBench", split="test")
    metrics = ("ocrbench",)
    max_new_tokens = 128
    controls = (IMAGES_EXCHANGED,)

    @classmethod
    def kinds(cls, row: dict[str, Any]) -> Sequence[str]:
        kind = row["question_type"]
        return (kind, TEXT_RECOGNITION) if kind in RECOGNITION_TYPES else (kind,)

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        picture = store.save(row["image"])
        answers = row["answer"] or []
        yield cls.sample(
            f"test_{number}",
            [image(picture), cls.prompt.format(question=row["question"].strip())],
            [answers] if isinstance(answers, str) else answers,
            kinds=cls.kinds(row),
            group=pictures_group(picture),
            scoring={"dataset": row["dataset"]},
        )

    def figures(self, rows: Sequence[Row]) -> dict[str, Any]:
        asked = [row for row in rows if row["control"] is None]
        return {**super().figures(rows), "points": points(asked)}

    def kind_figures(self, rows: Sequence[Row]) -> dict[str, Any]:
        asked = [row for row in rows if row["control"] is None]
        return {**super().kind_figures(rows), "points": points(asked)}


def points(rows: Sequence[Row]) -> int:
    """Right answers."""
    return round(sum(row["score"] for row in rows))
