"""What every task does: ask each question, ask it again under each control, score, and sum up.

A task file states only what is its own: metric, answer length, controls and the shape of its figures. Rows are plain
dictionaries, since they are what the results file holds:
`{id, task, kind, group, control, question, media, prompt, output, answers, score, scores, error, …}`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from eval.controls import FRAMES_SHUFFLED, IMAGES_EXCHANGED, choose_donors, exchange_media, shuffled_order
from eval.data import Dataset, Sample, media_items, single_questions
from eval.generation import Generator, Messages, Reply, Request
from eval.metrics import get_metric

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What the caller of an evaluation decides."""

    seed: int = 0
    controls: bool = True
    limit: int | None = None


@dataclass
class Ask:
    """One question as it will be put: under `control` (None: as it is), with what was changed in `note`."""

    sample: Sample
    messages: Messages | Callable[[], Messages]
    control: str | None
    note: dict[str, Any]


class Task:
    """Base of all tasks. `key` is the task's name in the table, `metrics[0]` its headline figure."""

    name = ""
    key = ""
    metrics: tuple[str, ...] = ("exact_match",)
    max_new_tokens = 32
    controls: tuple[str, ...] = ()

    def __init__(self, dataset: Dataset | None = None) -> None:
        """Most tasks know their figures beforehand; those made for any data look at `dataset`."""

    def prepare(self, samples: Sequence[Sample]) -> list[Sample]:
        """Samples of one question each."""
        return [question for sample in samples for question in single_questions(sample)]

    def run(self, samples: Sequence[Sample], generator: Generator, options: Options) -> list[Row]:
        """Rows of all questions and of all controls. Questions and controls share batches: they cost one sort."""
        samples = self.prepare(samples)[: options.limit]
        asks = [Ask(sample, sample.prompt, None, {}) for sample in samples]
        for control in self.controls if options.controls else ():
            asks += self.under_control(control, samples, generator, options.seed)
        good = [ask for ask in asks if not ask.sample.problem]
        requests = [Request(ask.sample.id, ask.messages) for ask in good]
        replies = iter(generator.answer(requests, self.max_new_tokens, label=self.key))
        return [
            self.row(a.sample, Reply(error=a.sample.problem) if a.sample.problem else next(replies), a.control, a.note)
            for a in asks
        ]

    def under_control(self, control: str, samples: list[Sample], generator: Generator, seed: int) -> list[Ask]:
        """The questions to which `control` can be applied, put under it."""
        if control == IMAGES_EXCHANGED:
            pairs = zip(samples, choose_donors(samples, seed))
            return [
                Ask(sample, exchange_media(sample, donor), control, {"donor": donor.id, "shown": donor.media})
                for sample, donor in pairs
                if donor is not None
            ]
        if control == FRAMES_SHUFFLED:
            return [
                Ask(sample, partial(shuffle_videos, sample, seed, generator.processor), control, {})
                for sample in samples
                if not sample.problem and any(item["type"] == "video" for item in media_items(sample.prompt))
            ]
        raise ValueError(f"{type(self).__name__} does not know the control {control!r}")

    def row(self, sample: Sample, reply: Reply, control: str | None, note: dict[str, Any]) -> Row:
        """One scored answer. What failed scores zero under every metric; a missing gold answer is a failure too."""
        error = reply.error or (None if sample.answers else "no gold answer in the record")
        scores = {name: 0.0 if error else get_metric(name)(reply.text, sample.answers) for name in self.metrics}
        return {
            "id": sample.id,
            "task": self.key,
            "kind": sample.kind,
            "group": sample.group,
            "control": control,
            "question": sample.question,
            "media": sample.media,
            "prompt": reply.prompt,
            "prompt_tokens": reply.prompt_tokens,
            "output": reply.text,
            "stopped": reply.stopped,
            "answers": sample.answers,
            "score": scores[self.metrics[0]],
            "scores": scores,
            "error": error,
            **note,
        }

    def figures(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The task's entry in the stage table: headline and further metrics, n, kinds, controls, failures."""
        asked = [row for row in rows if row["control"] is None]
        figures: dict[str, Any] = {name: mean(asked, name) for name in self.metrics}
        figures |= {"n": len(asked), "failed": sum(row["error"] is not None for row in asked)}
        figures["kinds"] = {
            kind: self.kind_figures([row for row in rows if row["kind"] == kind])
            for kind in sorted({row["kind"] for row in rows})
        }
        figures["controls"] = self.control_figures(rows)
        return figures

    def kind_figures(self, rows: Sequence[Row]) -> dict[str, Any]:
        asked = [row for row in rows if row["control"] is None]
        return {self.metrics[0]: mean(asked, self.metrics[0]), **self.control_figures(rows), "n": len(asked)}

    def control_figures(self, rows: Sequence[Row]) -> dict[str, float | None]:
        """The headline metric under each control that was run.

        A control that could not be applied (two frames cannot be shuffled, the donor's file is broken) is left out:
        counting it as wrong, as a failed question is, would flatter the model.
        """
        done = [row for row in rows if row["control"] and not row["error"]]
        return {
            control: mean([row for row in done if row["control"] == control], self.metrics[0])
            for control in self.controls
            if any(row["control"] == control for row in done)
        }


def mean(rows: Sequence[Row], metric: str) -> float | None:
    """Mean of one metric over rows, to 4 places; None over no rows."""
    return round(sum(row["scores"][metric] for row in rows) / len(rows), 4) if rows else None


def shuffle_videos(sample: Sample, seed: int, processor: Any) -> Messages:
    """The prompt with every video given as frames out of order; time stamps stay in order, as if filmed that way.

    Raises ValueError for a video of fewer than 3 frames: two frames can only be kept or reversed.
    """
    from vlm.prompt_media import open_video

    messages = []
    for message in sample.prompt:
        content = []
        for place, item in enumerate(message["content"]):
            if item["type"] == "video":
                frames, timestamps = open_video(item["video"], None, processor.video)  # as the processor samples them
                order = shuffled_order(len(frames), seed, f"{sample.id}:{place}")
                if order is None:
                    raise ValueError(f"{item['video']}: {len(frames)} frames cannot be shuffled, 3 are needed")
                item = {"type": "video", "video": frames[order], "timestamps": list(timestamps)}
            content.append(item)
        messages.append({**message, "content": content})
    return messages
