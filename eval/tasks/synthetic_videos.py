"""Questions on the embedded videos of moving shapes: direction of motion, order of appearance, number of shapes.

The headline is the direction of motion, which no single frame shows; the control shuffles the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.controls import FRAMES_SHUFFLED
from eval.tasks.base import Row, Task
from eval.tasks.registry import register_task

HEADLINE_KIND = "direction"


@register_task
class SyntheticVideos(Task):
    name = "synthetic_videos"
    key = "videos"
    metrics = ("accuracy",)
    max_new_tokens = 8
    controls = (FRAMES_SHUFFLED,)

    def counted(self, rows: Sequence[Row]) -> list[Row]:
        """The direction questions; all, where there are none."""
        return [row for row in rows if row["kind"] == HEADLINE_KIND] or list(rows)

    def figures(self, rows: Sequence[Row]) -> dict[str, Any]:
        """As usual, but headline, `n` and controls are those of the questions that count."""
        figures = super().figures(rows)
        of_headline = super().figures(self.counted(rows))
        about = {"kinds": figures["kinds"], "questions": figures["n"], "failed": figures["failed"]}
        if of_headline["n"] < figures["n"]:
            about["headline_kind"] = HEADLINE_KIND
        return {**of_headline, **about}
