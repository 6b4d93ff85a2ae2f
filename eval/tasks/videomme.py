"""Video-MME (Fu et al., CVPR 2025): four-way questions on videos of 11 seconds to an hour; without subtitles.

900 videos, three questions each, all in the split "test", answers public. Prompt and limit are those of lmms-eval's
`videomme`, whose prompt speaks of subtitles also where there are none; VLMEvalKit asks "These are the frames of a
video. Select the best answer … based on the video." and "Question: … Answer: ", so its figures are not comparable.
Mean over questions; kinds are the length (short, medium, long), the domain and the type of question. Interval
clustered by video. The videos are zip archives (`videos_chunked_01.zip`, …) with `data/<videoID>.mp4`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.data import Sample
from eval.sources import Source
from eval.tasks._video_choice import VideoChoice, without_letter
from eval.tasks.registry import register_task

TASK = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles."
    " Respond with only the letter (A, B, C, or D) of the correct option."
)


@register_task
class VideoMME(VideoChoice):
    name = "videomme"
    source = Source("lmms-eval/Video-MME", split="test")
    prompt = TASK + "\n{question}\n{options}\n\nAnswer with the option's letter from the given choices directly."
    archives = ("videos_chunked_*.zip",)
    video_column = "videoID"

    @classmethod
    def kinds(cls, row: dict[str, Any]) -> Sequence[str]:
        return (row["duration"], row["domain"], row["task_type"])

    @classmethod
    def choice(cls, row: dict[str, Any], number: int) -> Sample:
        text = cls.prompt.format(question=row["question"], options="\n".join(row["options"]))
        options = [without_letter(option) for option in row["options"]]
        return cls.asked(row, row["question_id"], text, row["answer"], options)
