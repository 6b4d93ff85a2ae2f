"""DocVQA (Mathew et al., WACV 2021): questions on scanned document pages, answers are spans of the page.

Validation split, ANLS, prompt and limit of lmms-eval's `docvqa_val`. Questions about one page share a group. The test
split's answers are not public: see `docvqa_test`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eval.controls import IMAGES_EXCHANGED
from eval.data import Sample
from eval.media_store import MediaStore
from eval.sources import DataPlaces, Source
from eval.tasks.benchmark import Benchmark, image
from eval.tasks.registry import register_task


@register_task
class DocVQA(Benchmark):
    name = "docvqa"
    source = Source("lmms-lab/DocVQA", split="validation", config="DocVQA")
    prompt = "{question}\nAnswer the question using a single word or phrase."
    metrics = ("anls",)
    max_new_tokens = 32
    controls = (IMAGES_EXCHANGED,)

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        page = store.save(row["image"])
        yield cls.sample(
            row["questionId"],
            [image(page), cls.prompt.format(question=row["question"])],
            row["answers"] or [],
            group=str(row["docId"]),
        )
