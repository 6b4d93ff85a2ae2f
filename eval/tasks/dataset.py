"""Any dataset folder, JSONL or LLaVA JSON of a user's own: the figure is the metric they name.

Without a name the records' own `metric` field decides, else exact match. Samples with pictures are also asked with the
pictures exchanged, those with videos with the frames shuffled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.controls import FRAMES_SHUFFLED, IMAGES_EXCHANGED
from eval.data import Dataset, media_items
from eval.metrics import get_metric
from eval.tasks.base import Row, Task
from eval.tasks.registry import register_task


@register_task
class DatasetTask(Task):
    name = "dataset"
    max_new_tokens = 64

    def __init__(self, dataset: Dataset | None = None, metric: str | None = None) -> None:
        """Raises UnknownNameError for an unknown metric, ValueError without a dataset."""
        if dataset is None:
            raise ValueError("the task 'dataset' needs data: use --data FOLDER or FILE")
        own = next((sample.meta["metric"] for sample in dataset.samples if "metric" in sample.meta), None)
        chosen = metric or own or "exact_match"
        get_metric(chosen)
        self.key = dataset.name
        self.metrics = (chosen, *(name for name in ("exact_match", "anls") if name != chosen))
        kinds = {item["type"] for sample in dataset.samples for item in media_items(sample.prompt)}
        self.controls = tuple(c for k, c in (("image", IMAGES_EXCHANGED), ("video", FRAMES_SHUFFLED)) if k in kinds)

    def figures(self, rows: Sequence[Row]) -> dict[str, Any]:
        figures = super().figures(rows)
        if len(figures["kinds"]) < 2:
            del figures["kinds"]
        return figures
