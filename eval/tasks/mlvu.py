"""MLVU (Zhou et al., CVPR 2025), dev set: questions on videos of three minutes to two hours, seven kinds of task.

Prompt and limit of lmms-eval's `mlvu_dev`: the column `question` has the options in it ("(A) …"), and the prompt ends
in "Best option: (". Headline is the macro mean over the kinds (M-Avg), the plain mean stands beside it. VLMEvalKit's
"M-Avg" is a mean over questions without the kind `order`, judged by a language model: another figure. Interval
clustered by video. The repository's videos are zip archives; some names in its table have no suffix.

The two generation tasks (sub-scene captioning, video summary) are not in this repository; where a copy has their rows,
they are asked and not scored, since only a judge model can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.aggregates import Aggregate, MacroMean
from eval.data import Sample
from eval.judge import NEEDED
from eval.sources import Source
from eval.tasks._video_choice import VideoChoice, video_id
from eval.tasks.registry import register_task

GENERATION = ("sub_scene", "subPlot", "summary")


@register_task
class MLVU(VideoChoice):
    name = "mlvu"
    source = Source("sy1998/MLVU_dev", split="test")
    prompt = "{question}\nOnly give the best option.\nBest option: ("
    archives = ("*.zip",)
    video_column = "video_name"

    @classmethod
    def kinds(cls, row: dict[str, Any]) -> Sequence[str]:
        return (row["task_type"],)

    @classmethod
    def choice(cls, row: dict[str, Any], number: int) -> Sample:
        sample_id = f"{row['task_type']}-{row.get('question_id') or number}"
        if row["task_type"] in GENERATION:
            about = {"kinds": cls.kinds(row), "group": video_id(row[cls.video_column])}
            content = cls.shown(row, row["question"])
            return cls.sample(sample_id, content, [row["answer"]], unscored=NEEDED, **about)
        text = cls.prompt.format(question=row["question"])
        return cls.asked(row, sample_id, text, row["answer"], row["candidates"])

    def aggregates(self) -> dict[str, Aggregate]:
        macro = [MacroMean(name) for name in self.metrics]
        return {one.name: one for one in macro} | super().aggregates()
