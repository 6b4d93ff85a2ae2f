"""AI2D (Kembhavi et al., ECCV 2016): multiple-choice questions on school diagrams. Accuracy.

`ai2d` shows diagrams whose labels are masked by letters, `ai2d_no_mask` the labels themselves; they differ by several
points. Test splits, repositories, prompt and limit of lmms-eval 0.7.3. Headline: our own letter rule. Beside it the
rule of lmms-eval's filter, and the share of answers without a readable option, which are wrong under either.
VLMEvalKit reads letters with `can_infer`: score a results file again under `mcq_accuracy.vlmevalkit.can_infer`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eval.aggregates import Aggregate, UnreadableRate
from eval.controls import IMAGES_EXCHANGED
from eval.data import Sample
from eval.media_store import MediaStore
from eval.sources import DataPlaces, Source
from eval.tasks.benchmark import Benchmark, image, lettered, pictures_group
from eval.tasks.registry import register_task


@register_task
class AI2D(Benchmark):
    name = "ai2d"
    source = Source("lmms-lab-encoder/ai2d", split="test", formerly=("lmms-lab/ai2d",))
    prompt = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."
    metrics = ("mcq_accuracy", "mcq_accuracy.lmms_eval.ai2d_filter")
    max_new_tokens = 16
    controls = (IMAGES_EXCHANGED,)

    @classmethod
    def samples(cls, row: dict[str, Any], number: int, store: MediaStore, places: DataPlaces) -> Iterable[Sample]:
        diagram, options = store.save(row["image"]), row["options"]
        yield cls.sample(
            f"test_{number}",
            [image(diagram), cls.prompt.format(question=row["question"], options=lettered(options))],
            gold_letter(row["answer"], options),
            group=pictures_group(diagram),
            scoring={"options": options},
        )

    def aggregates(self) -> dict[str, Aggregate]:
        return {**super().aggregates(), "unreadable_rate": UnreadableRate()}


@register_task
class AI2DNoMask(AI2D):
    name = "ai2d_no_mask"
    source = Source("Efficient-Large-Model/ai2d-no-mask", split="test")


def gold_letter(answer: Any, options: list[str]) -> list[str]:
    """The letter of the option that `answer` counts, from 0; nothing where the row has no answer.

    Raises ValueError for an answer that is no option.
    """
    if answer is None:
        return []
    if not str(answer).isdigit() or int(answer) >= len(options):
        raise ValueError(f"answer {answer!r} is none of {len(options)} options, which count from 0")
    return [chr(ord("A") + int(answer))]
