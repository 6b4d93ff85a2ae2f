"""ChartQA (Masry et al., Findings of ACL 2022): questions on charts, numbers right within 5 %. Relaxed accuracy.

Test split, repository, prompt and limit of lmms-eval 0.7.3; VLMEvalKit asks for "a single word or phrase" and strips
the prediction before it compares. The field quotes three figures: all questions, the human half and the augmented half
(kinds), and also the mean of the halves, which is the overall figure where both are of equal size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from eval.aggregates import Aggregate, MacroMean
from eval.controls import IMAGES_EXCHANGED
from eval.data import Sample
from eval.media_store import MediaStore
from eval.sources import DataPlaces, Source
from eval.tasks.benchmark import Benchmark, image, pictures_group
from eval.tasks.registry import register_task

HALVES = {"human_test": "human", "augmented_test": "augmented"}


@register_task
class ChartQA(Benchmark):
    name = "chartqa"
    source = Source("lmms-lab-encoder/ChartQA", split="test", formerly=("lmms-lab/ChartQA",))
    prompt = "{question}\nAnswer the question with a single word."
    metrics = ("relaxed_accuracy",)
    max_new_tokens = 16
    controls = (IMAGES_EXCHANGED,)

    @classmethod
    def kinds(cls, row: dict[str, Any]) -> Sequence[str]:
        if row["type"] not in HALVES:
            raise ValueError(f"type is {row['type']!r}; known: {', '.join(HALVES)}")
        return (HALVES[row["type"]],)

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        chart = store.save(row["image"])
        yield cls.sample(
            f"test_{number}",
            [image(chart), cls.prompt.format(question=row["question"])],
            [] if row["answer"] is None else [row["answer"]],
            kinds=cls.kinds(row),
            group=pictures_group(chart),
        )

    def aggregates(self) -> dict[str, Aggregate]:
        halves = MacroMean("relaxed_accuracy", classes=tuple(HALVES.values()), name="mean_of_halves")
        return {**super().aggregates(), halves.name: halves}
