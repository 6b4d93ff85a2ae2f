"""Any dataset folder, JSONL or LLaVA JSON of a user's own: the figure is the metric they name.

Without a name the records' own `metric` decides, for each record its own; a record with options is a multiple-choice
question; the rest is exact match. Samples with pictures are also asked with the pictures exchanged, those with videos
with the frames shuffled.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from eval.aggregates import Aggregate, CorpusBleu, Mean
from eval.aggregates.chexbert_f1 import ChexbertF1
from eval.aggregates.unreadable_rate import UnreadableRate
from eval.controls import FRAMES_SHUFFLED, IMAGES_EXCHANGED
from eval.data import Dataset, Sample, media_items
from eval.judge import JUDGE, NEEDED
from eval.metrics.mcq_accuracy import gold_letters
from eval.registry import UnknownNameError
from eval.scoring import check_metric
from eval.tasks.base import Options, Row, Task
from eval.tasks.registry import register_task

logger = logging.getLogger(__name__)
OWN_METRIC = "own_metric"
_BESIDE = ("exact_match", "anls")  # shown beside a single metric
NO_SCORES = {"mcq_option_extraction": "mcq_accuracy"}  # names a letter; what scores it


@register_task
class DatasetTask(Task):
    name = "dataset"
    max_new_tokens = 64

    def __init__(self, dataset: Dataset | None = None, metric: str | None = None) -> None:
        """Raises UnknownNameError for an unknown metric, ValueError without a dataset or for what gives no score."""
        if dataset is None:
            raise ValueError("the task 'dataset' needs data: use --data FOLDER or FILE")
        self.metric, *beside = metric.split(",") if metric else [None]
        used: dict[str, str] = {}  # metric: the first record that names it
        for sample in dataset.samples:
            if not sample.problem:
                used.setdefault(self.metric_of(sample), sample.id)
        used.pop(JUDGE, None)
        used = used or {self.metric if self.metric not in (None, JUDGE) else "exact_match": ""}
        for name, first in {**used, **dict.fromkeys(beside, "")}.items():
            try:
                check_metric(name)
            except UnknownNameError as error:
                where = f"{dataset.file}, record {first}: " if first and not metric else ""
                raise UnknownNameError(f"{where}{error}") from None
            if name in NO_SCORES:
                raise ValueError(f"metric {name} gives no score: use {NO_SCORES[name]}")
        self._warn_of_equal_options(dataset)
        self.several = len(used) > 1
        self.key = dataset.name
        self.metrics = tuple(used) if self.several else tuple(dict.fromkeys([*used, *(beside or _BESIDE)]))
        kinds = {item["type"] for sample in dataset.samples for item in media_items(sample.prompt)}
        self.controls = tuple(c for k, c in (("image", IMAGES_EXCHANGED), ("video", FRAMES_SHUFFLED)) if k in kinds)

    def _warn_of_equal_options(self, dataset: Dataset) -> None:
        twice = [s.id for s in dataset.samples if len({*(o := s.scoring.get("options") or [])}) < len(o)]
        if twice:
            logger.warning(
                "%s: %d questions have two options with the same words (%s%s): an answer in words names neither",
                dataset.file, len(twice), ", ".join(twice[:5]), ", …" if len(twice) > 5 else "",
            )  # fmt: skip

    def prepare(self, samples: Sequence[Sample], options: Options) -> list[Sample]:
        """Records under the metric `judge` wait for one; a gold answer that is none of the options is a problem."""
        return [self._checked(sample) for sample in super().prepare(samples, options)]

    def _checked(self, sample: Sample) -> Sample:
        metric = self.metric_of(sample)
        if sample.problem or sample.unscored:
            return sample
        if metric == JUDGE:
            return replace(sample, meta={**sample.meta, "unscored": NEEDED})
        if metric.partition(".")[0] == "mcq_accuracy" and sample.answers:
            options, choices = sample.scoring.get("options") or [], sample.scoring.get("choices")
            if options and not gold_letters(sample.answers, options, choices):
                gold = ", ".join(map(repr, sample.answers))
                problem = f"gold answer {gold} is none of the {len(options)} options, nor the letter of one"
                return replace(sample, problem=problem)
        return sample

    def metric_of(self, sample: Sample) -> str:
        own = "mcq_accuracy" if sample.scoring.get("options") else "exact_match"
        return self.metric or str(sample.meta.get("metric") or own)

    def metrics_for(self, sample: Sample) -> Sequence[str]:
        own = self.metric_of(sample)
        return (own,) if self.several and own in self.metrics and not sample.problem else self.metrics

    def aggregates(self) -> dict[str, Aggregate]:
        """The mean of each metric; first, where the records name several, the mean of each record's own."""
        own: dict[str, Aggregate] = {OWN_METRIC: OwnMetric()} if self.several else {}
        choice = any(name.partition(".")[0] == "mcq_accuracy" for name in self.metrics)
        return own | {name: figure_of(name) for name in self.metrics} | (
            {"unreadable_rate": UnreadableRate()} if choice else {}
        )

    def figures(self, rows: Sequence[Row]) -> dict[str, Any]:
        figures = super().figures(rows)
        if len(figures["kinds"]) < 2:
            del figures["kinds"]
        return figures


class OwnMetric(Mean):
    """Mean of `row["score"]`: each record under the metric that it names itself. A judge's points stay apart."""

    def __init__(self) -> None:
        super().__init__(OWN_METRIC)

    def statistics(self, row: Row) -> Any:
        if JUDGE in row["scores"]:
            return None
        return super().statistics({**row, "scores": {OWN_METRIC: row["score"]}})


def figure_of(metric: str) -> Aggregate:
    """BLEU over many answers is not the mean of their scores, nor is the F1 of their labels."""
    if metric == "chexbert_f1":
        return ChexbertF1()
    if metric.startswith("bleu"):
        return CorpusBleu(int(metric.removeprefix("bleu")), name=metric)
    return Mean(metric)
