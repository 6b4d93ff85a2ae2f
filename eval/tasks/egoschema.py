"""EgoSchema (Mangalam et al., NeurIPS 2023): five-way questions on three-minute clips filmed from the wearer's view.

The subset of 500 questions whose answers are public; lmms-eval calls it `egoschema_subset`, and its prompt, limit and
rule are used here. Mean over questions, one question a
clip. The whole set is `egoschema_full`. lmms-eval compares a response without a letter with options that begin with
their letter, we with their text. The videos are zip archives with `videos/<video_idx>.mp4`.
"""

from __future__ import annotations

from typing import Any

from eval.data import Sample
from eval.sources import Source
from eval.tasks._video_choice import VideoChoice, without_letter
from eval.tasks.registry import register_task


@register_task
class EgoSchema(VideoChoice):
    name = "egoschema"
    source = Source("lmms-eval/egoschema", split="test", config="Subset")
    prompt = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."
    archives = ("videos_chunked_*.zip",)
    video_column = "video_idx"
    metrics = ("mcq_accuracy", "mcq_accuracy.lmms_eval.egoschema")

    @classmethod
    def choice(cls, row: dict[str, Any], number: int) -> Sample:
        text = cls.prompt.format(question=row["question"], options="\n".join(row["option"]))
        options = [without_letter(option) for option in row["option"]]
        if not 0 <= int(row["answer"]) < len(options):
            raise ValueError(f"answer {row['answer']} is none of {len(options)} options")
        return cls.asked(row, row["question_idx"], text, chr(65 + int(row["answer"])), options)
