"""Runs of the video benchmarks with a backend that says how it takes frames, and keeps what each question showed."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from eval.backends.base import Encoded, Messages
from eval.evaluate import evaluate
from eval.jobs import Job
from eval.tasks.base import Options
from tests.helpers.benchmark_runs import NONSENSE
from tests.helpers.scripted_backend import ScriptedBackend


class FramesBackend(ScriptedBackend):
    """As `ScriptedBackend`, with a processor whose `video` is given; pictures that are no files pass through.

    The prompt has `<image>` and `<video>` where the media stand.
    """

    def __init__(self, answers: Mapping[str, str], video: dict[str, Any] | None = None) -> None:
        super().__init__(lambda sample_id: answers.get(sample_id, NONSENSE))
        self.processor = SimpleNamespace(video=video) if video else None

    def encode(self, messages: Messages, sample_id: str) -> Encoded:
        items = [item for message in messages for item in message["content"]]
        super().encode([{"role": "user", "content": [i for i in items if isinstance(i[i["type"]], str)]}], sample_id)
        self.seen[sample_id] = messages
        prompt = "".join(item["text"] if item["type"] == "text" else f"<{item['type']}>" for item in items)
        return Encoded(data=sample_id, length=1, prompt=prompt)


def run_video_job(
    job: Job, answers: Mapping[str, str], frames: dict[str, Any] | None = None, **options: Any
) -> tuple[dict[str, Any], dict[str, dict[str, Any]], FramesBackend]:
    """(figures, rows by sample id, the backend)."""
    backend = FramesBackend(answers, frames)
    results = evaluate(backend, [job], Options(**options), batch_size=8, progress=False)
    return results["tasks"][job.task.key], {row["id"]: row for row in results["samples"]}, backend
