"""TextVQA (Singh et al., CVPR 2019): questions on photos with text in them, ten people's answers each. VQA accuracy.

Validation split, repository, prompt and stop string of lmms-eval 0.7.3, without OCR tokens. Its prompt runs questions
through `str.capitalize()`, which also makes everything behind the first letter lower case ("What does NASA mean?" is
asked as "What does nasa mean?"); this is kept, or numbers would not be comparable. lmms-eval states
no limit (each model's own counts, often 1024): 32 tokens are enough for any answer that can score, since it must equal
one of the ten.
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
class TextVQA(Benchmark):
    name = "textvqa"
    source = Source("lmms-lab-encoder/textvqa", split="validation", formerly=("lmms-lab/textvqa",))
    prompt = "{question}\nAnswer the question using a single word or phrase."
    metrics = ("vqa_accuracy",)
    max_new_tokens = 32
    stop = ("ASSISTANT:",)
    controls = (IMAGES_EXCHANGED,)

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        yield cls.sample(
            row["question_id"],
            [image(store.save(row["image"])), cls.prompt.format(question=row["question"].capitalize())],
            row["answers"] or [],
            group=str(row["image_id"]),
        )
