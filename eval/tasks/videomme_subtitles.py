"""Video-MME with subtitles: as `videomme`, and the model reads the subtitles of the frames that it sees.

The benchmark's own rule: the subtitles that belong to the sampled frames. Prompt of lmms-eval's `videomme_w_subtitle`,
with its words for a video that has none (there are 744 files for 900 videos; such questions are counted in
`without_subtitles`). Differences to lmms-eval: it always takes the subtitles of 32 frames, however many the model sees;
it loses their order (a Python set); it drops lines that are not in its expected `<font>` tag. VLMEvalKit repeats a
subtitle that spans several frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.backends.base import Messages
from eval.data import Sample
from eval.subtitles import on_screen, read_srt
from eval.tasks._subtitled_video import SubtitledVideo, frame_times
from eval.tasks.registry import register_task
from eval.tasks.videomme import TASK, VideoMME

LISTED = "This video's subtitles are listed below: \n{subtitles}\n"
NONE = "No subtitles available"


@register_task
class VideoMMESubtitles(SubtitledVideo, VideoMME):
    name = "videomme_subtitles"
    prompt = TASK + "\n{question}\n{options}\nThe best answer is:"
    subtitle_archives = ("subtitle.zip",)
    subtitle_suffixes = (".srt",)
    subtitle_column = "videoID"

    @classmethod
    def about(cls) -> dict[str, Any]:
        return {**super().about(), "prompt": LISTED + cls.prompt, "subtitles": "those on screen at a sampled frame"}

    @classmethod
    def with_subtitles(cls, sample: Sample, frames: Mapping[str, Any]) -> Messages:
        text = NONE
        if path := sample.meta["subtitle_file"]:
            text = "\n".join(on_screen(read_srt(path), frame_times(sample.meta["video_file"], **frames)))
        (message,) = sample.prompt
        *media, question = message["content"]
        listed = {"type": "text", "text": LISTED.format(subtitles=text) + question["text"]}
        return [{**message, "content": [*media, listed]}]
