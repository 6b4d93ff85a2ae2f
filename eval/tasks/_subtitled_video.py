"""Video questions with subtitles: which of them the model reads is decided by the frames that it sees.

A subtitle is shown if a frame is taken while it is on screen. The times of frames come from the length in the video's
header and from the same plan as the frames themselves, so nothing is decoded for it; and only when the question's turn
comes, so that opening a benchmark opens no videos. Where the backend does not say how it takes frames (an endpoint), 32
frames at most are assumed, lmms-eval's number. Without media (`--blind`) the same subtitles are shown alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from eval.backends.base import Messages
from eval.data import Sample
from eval.generation import Generator
from eval.sources import DataPlaces
from eval.tasks._video_choice import FILE, VideoChoice, located
from eval.tasks.base import Ask, Options, Row
from eval.video_archives import ArchivedFiles

SUBTITLES, NO_SUBTITLES = "subtitle file", "subtitle problem"
UNKNOWN_FRAMES = {"max_frames": 32, "fps": 2.0}


class SubtitledVideo(VideoChoice):
    """Base: a subclass says how subtitles and question stand together in `with_subtitles`."""

    subtitle_archives: ClassVar[tuple[str, ...]]
    subtitle_suffixes: ClassVar[tuple[str, ...]]
    subtitle_column: ClassVar[str]
    """The column with the name of the subtitles' file, with or without suffix."""
    controls = ()  # a control would have to exchange the subtitles, too

    @classmethod
    def rows(cls, places: DataPlaces, limit: int | None) -> Iterable[dict[str, Any]]:
        """The rows with the paths of their video and of their subtitles, where there are any."""
        files = ArchivedFiles(cls.source, places, cls.name, cls.subtitle_archives, cls.subtitle_suffixes)
        for row in super().rows(places, limit):
            yield row | located(files, row, cls.subtitle_column, SUBTITLES, NO_SUBTITLES)

    @classmethod
    def asked(cls, row: dict[str, Any], *args: Any, **about: Any) -> Sample:
        return super().asked(row, *args, video_file=row.get(FILE), subtitle_file=row.get(SUBTITLES), **about)

    def prepare(self, samples: Sequence[Sample], options: Options) -> list[Sample]:
        """As usual; what the caller says of frames is kept beside the video, which `--blind` takes away."""
        frames = {**self.video, **options.video}
        return [replace(one, meta={**one.meta, "frames": frames}) for one in super().prepare(samples, options)]

    def ask(self, sample: Sample, generator: Generator) -> Ask:
        if sample.problem:
            return super().ask(sample, generator)
        frames = frames_taken(sample, generator.backend.processor)
        note = {} if sample.meta.get("subtitle_file") else {"subtitles": "none for this video"}
        return Ask(sample, partial(self.with_subtitles, sample, frames), None, note)

    @classmethod
    def with_subtitles(cls, sample: Sample, frames: Mapping[str, Any]) -> Messages:
        """The conversation as the model gets it; `frames`: max_frames and fps. Raises what a broken file raises."""
        raise NotImplementedError

    def figures(self, rows: Sequence[Row]) -> dict[str, Any]:
        """As usual, with the number of questions whose video has no subtitles."""
        return super().figures(rows) | {"without_subtitles": sum("subtitles" in row for row in rows)}


def frames_taken(sample: Sample, processor: Any) -> dict[str, Any]:
    """`max_frames` and `fps` of a sample's video: what caller and task say, else the backend's processor."""
    from vlm.prompt_media import MAX_FRAMES

    settings = getattr(processor, "video", None)
    frames = dict(UNKNOWN_FRAMES)
    if isinstance(settings, Mapping) and settings.get("fps"):
        frames = {"max_frames": settings.get("max_frames") or MAX_FRAMES, "fps": settings["fps"]}
    return frames | {name: value for name, value in sample.meta["frames"].items() if name in frames}


def frame_times(path: str, max_frames: int, fps: float) -> list[float]:
    """Seconds at which frames of a video file will be taken, from its header.

    Raises SampleError for a file that is no video.
    """
    from pathlib import Path

    from vlm.media.video import plan_times
    from vlm.media.video_stream import VideoStream

    with VideoStream(Path(path)) as stream:
        return plan_times(stream.duration(), max_frames, fps, 0.0, None)
