"""LongVideoBench (Wu et al., NeurIPS 2024), validation: questions that refer to moments of videos of up to an hour.

The form with the video and without subtitles: prompt, limit and rule of lmms-eval's `longvideobench_val_v`; VLMEvalKit
asks the same without the last line break. Mean over questions (lmms-eval's "Overall" counts every question twice, in
its length and in its category, which is the same mean). Kinds: the length of the video (up to 15, 60, 600 or 3600
seconds) and the category of the question (S2E: from a scene to an event, …). Interval clustered by video.

The repository is gated, its videos are one tar archive in pieces. Answers of the test split are not public.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from eval.data import Sample
from eval.local_files import json_rows
from eval.sources import DataPlaces, Source
from eval.tasks._video_choice import VideoChoice
from eval.tasks.benchmark import lettered
from eval.tasks.registry import register_task

NO_OPTION = "N/A"


@register_task
class LongVideoBench(VideoChoice):
    name = "longvideobench"
    source = Source("longvideobench/LongVideoBench", split="validation")
    prompt = "{question}\n{options}\nAnswer with the option's letter from the given choices directly.\n"
    archives = ("videos.tar", "videos.tar.part.*")
    video_column = "video_path"
    metrics = ("mcq_accuracy", "mcq_accuracy.lmms_eval.longvideobench")
    max_new_tokens = 32

    @classmethod
    def rows(cls, places: DataPlaces, limit: int | None) -> Iterable[dict[str, Any]]:
        try:
            yield from super().rows(places, limit)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}\n{cls.source.repo} is gated: accept its terms on"
                f" https://huggingface.co/datasets/{cls.source.repo}, then `hf auth login`. Its videos are one archive"
                " in pieces, read as it is, or unpacked in the copy: cat videos.tar.part.* | tar -x"
            ) from error

    @classmethod
    def table(cls, places: DataPlaces, limit: int | None) -> Iterable[dict[str, Any]]:
        """The rows; of a copy those of `lvb_val.json`, the file that the benchmark's authors read."""
        local = cls.source.local_folder(places.root, cls.name)
        if local is None or not (local / "lvb_val.json").is_file():
            return super().table(places, limit)
        return islice(json_rows(local / "lvb_val.json"), limit)

    @classmethod
    def kinds(cls, row: dict[str, Any]) -> Sequence[str]:
        return (f"{row['duration_group']} s", row["question_category"])

    @classmethod
    def choice(cls, row: dict[str, Any], number: int) -> Sample:
        options = row.get("candidates") or [row.get(f"option{place}") for place in range(5)]
        options = [option for option in options if option not in (None, NO_OPTION)]
        if not 0 <= int(row["correct_choice"]) < len(options):
            raise ValueError(f"correct_choice {row['correct_choice']} is none of {len(options)} options")
        text = cls.prompt.format(question=row["question"], options=lettered(options))
        return cls.asked(
            row, row["id"], text, chr(65 + int(row["correct_choice"])), options, group=str(row["video_id"])
        )
