"""LongVideoBench as its authors mean it: frames as pictures, and between them the subtitles spoken there.

As lmms-eval's `longvideobench_val_i`: 16 frames, fewer for a video of less than 16 seconds (one a second); prompt and
rule as `longvideobench`. Subtitles without a frame in them are left out. Difference to lmms-eval: its frames begin the
sixteenths of a video, ours lie in their middle, and subtitles follow the times of the frames that were really taken.
`--max-frames` and `--fps` override. Videos without subtitles are counted in `without_subtitles`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from eval.backends.base import Messages
from eval.data import Sample, media_items
from eval.subtitles import Subtitle, between_frames, read_json
from eval.tasks._subtitled_video import SubtitledVideo, frame_times
from eval.tasks.longvideobench import LongVideoBench
from eval.tasks.registry import register_task


@register_task
class LongVideoBenchInterleaved(SubtitledVideo, LongVideoBench):
    name = "longvideobench_interleaved"
    subtitle_archives = ("subtitles.tar",)
    subtitle_suffixes = (".json",)
    subtitle_column = "subtitle_path"
    video = {"max_frames": 16, "fps": 1.0}

    @classmethod
    def choice(cls, row: dict[str, Any], number: int) -> Sample:
        sample = super().choice(row, number)
        times = {"shift": float(row["starting_timestamp_for_subtitles"]), "duration": float(row["duration"])}
        return replace(sample, meta={**sample.meta, "subtitle_times": times})

    @classmethod
    def with_subtitles(cls, sample: Sample, frames: Mapping[str, Any]) -> Messages:
        pictures, times = [], []
        if media_items(sample.prompt):
            pictures, times = frames_of(sample.meta["video_file"], **frames)
        else:
            times = frame_times(sample.meta["video_file"], **frames)
        content: list[dict[str, Any]] = []
        for one in between_frames(_subtitles(sample), times):
            if isinstance(one, str):
                content.append({"type": "text", "text": one + "\n"})
            elif pictures:
                content += [{"type": "image", "image": pictures[one]}, {"type": "text", "text": "\n"}]
        (message,) = sample.prompt
        return [{**message, "content": [*content, {"type": "text", "text": message["content"][-1]["text"]}]}]


def _subtitles(sample: Sample) -> list[Subtitle]:
    path = sample.meta["subtitle_file"]
    return read_json(path, **sample.meta["subtitle_times"]) if path else []


def frames_of(path: str, max_frames: int, fps: float) -> tuple[list[Any], list[float]]:
    """(PIL pictures, seconds) of the frames of a video file. Raises SampleError."""
    from PIL import Image

    from vlm.media.video import load_video

    clip = load_video(path, max_frames=max_frames, fps=fps)
    return [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in clip.frames], list(clip.times)
