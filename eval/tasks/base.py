"""What every task does: ask each question, ask it again under each control, score, and sum up.

A task file states only what is its own: metric, answer length, controls and the shape of its figures. Rows are plain
dictionaries, since they are what the results file holds:
`{id, task, kind, group, control, question, media, prompt, output, answers, score, scores, error, …}`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from eval.aggregates import Aggregate, Mean, calibration
from eval.backends.base import Decoding, Messages, Reply
from eval.bootstrap import interval
from eval.controls import (
    FRAMES_SHUFFLED,
    IMAGES_EXCHANGED,
    UNCONTROLLED,
    choose_donors,
    exchange_media,
    shuffled_order,
)
from eval.data import Dataset, Sample, media_items, single_questions, without_media
from eval.generation import Generator, Request
from eval.journal import reply_key
from eval.judge import JUDGE
from eval.metrics import metrics
from eval.metrics.accuracy import normalise_answer
from eval.scoring import prepare, scores_of

logger = logging.getLogger(__name__)

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What the caller of an evaluation decides."""

    seed: int = 0
    controls: bool | None = None  # None: as the task does by default
    limit: int | None = None
    max_new_tokens: int | None = None  # instead of the tasks' own
    blind: bool = False  # ask without images and videos: the text-only baseline
    video: Mapping[str, Any] = field(default_factory=dict)  # max_frames, fps: instead of the tasks' and the processor's
    calibration: bool = False  # also weigh yes against no, where a question wants one of them
    expert_weights: str | None = None  # folder that holds a folder of weights per expert


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
    medical = False  # about patients: a results file says so, and pages made of it begin with a notice
    metrics: tuple[str, ...] = ("exact_match",)
    max_new_tokens = 32
    stop: tuple[str, ...] = ()
    video: Mapping[str, Any] = {}  # max_frames, fps; empty: as the processor says
    controls: tuple[str, ...] = ()
    controls_by_default = True
    calibrated = False
    """Whether its questions can be answered by yes or no, so that their probabilities are worth a look."""
    figures_by_kind: tuple[str, ...] = ()
    """Figures shown for every kind, headline first; empty: the headline alone."""

    def __init__(self, dataset: Dataset | None = None) -> None:
        """Most tasks know their figures beforehand; those made for any data look at `dataset`."""

    def decoding(self, options: Options) -> Decoding:
        return Decoding(options.max_new_tokens or self.max_new_tokens, self.stop)

    def wants_controls(self, options: Options) -> bool:
        wanted = self.controls_by_default if options.controls is None else options.controls
        return wanted and not options.blind

    def check(self, options: Options) -> None:
        """Called before a model is opened. Raises ValueError where the task lacks what asking it needs."""

    def describe(self, options: Options) -> dict[str, Any]:
        """What a results file says of how the task was asked and scored."""
        decoding = self.decoding(options)
        return {
            "task": self.name,
            "metrics": list(self.metrics),
            "figures": list(self.aggregates()),
            "max_new_tokens": decoding.max_new_tokens,
            "stop": list(decoding.stop),
            "video": {**self.video, **options.video},
            **({"medical": True} if self.medical else {}),
        }

    def prepare(self, samples: Sequence[Sample], options: Options) -> list[Sample]:
        """Samples of one question each, with ids that occur once, as the options want them asked."""
        questions = [question for sample in samples for question in single_questions(sample)][: options.limit]
        taken = {sample.id for sample in questions}
        seen: dict[str, int] = {}
        prepared = []
        for sample in questions:
            seen[sample.id] = seen.get(sample.id, 0) + 1
            if seen[sample.id] > 1:
                sample = replace(sample, id=_free_id(sample.id, seen[sample.id], taken))
            if video := {**self.video, **options.video}:
                sample = replace(sample, messages=with_video_options(sample.messages, video))
            prepared.append(without_media(sample) if options.blind else sample)
        return prepared

    def run(self, samples: Sequence[Sample], generator: Generator, options: Options) -> list[Row]:
        """Rows of all questions and of all controls. Questions and controls share batches: they cost one sort."""
        samples = self.prepare(samples, options)
        asks = [self.ask(sample, generator) for sample in samples]
        asked = list(asks)
        for control in self.controls if self.wants_controls(options) else ():
            asks += (controlled := self.under_control(control, samples, generator, options.seed))
            covered = {ask.sample.id for ask in controlled}
            for ask in asked:
                if ask.sample.id not in covered:
                    ask.note.setdefault(UNCONTROLLED, []).append(control)
        self.weigh(asked, generator, options)
        good = [ask for ask in asks if not ask.sample.problem]
        requests = [Request(a.sample.id, a.messages, self.request_key(a.sample.id, a.control)) for a in good]
        answered = generator.answer(requests, self.decoding(options), label=self.key)
        self.prepare_scores([(ask.sample, reply) for ask, reply in zip(good, answered)])
        replies = iter(answered)
        return [
            self.row(a.sample, Reply(error=a.sample.problem) if a.sample.problem else next(replies), a.control, a.note)
            for a in asks
        ]

    def prepare_scores(self, answered: Sequence[tuple[Sample, Reply]]) -> None:
        """Metrics that are networks see all answers at once; where that fails each row says why it has no score."""
        pairs = [(reply.text, sample.answers) for sample, reply in answered if not reply.error]
        try:
            prepare([name for name in self.metrics if name in metrics], pairs)
        except ValueError as error:
            logger.warning("%s: %s", self.key, error)

    def ask(self, sample: Sample, generator: Generator) -> Ask:
        """How a question is put as it is; tasks whose prompt depends on the backend's frames override this."""
        return Ask(sample, sample.prompt, None, {})

    def gold_yes(self, sample: Sample) -> bool | None:
        """Whether the right answer is yes; None where the question does not want a yes or no."""
        golds = {normalise_answer(answer) for answer in sample.answers}
        return golds == {"yes"} if golds in ({"yes"}, {"no"}) else None

    def weigh(self, asked: Sequence[Ask], generator: Generator, options: Options) -> None:
        """Notes P(yes) of the questions that want a yes or no, if that is asked for."""
        asked = [ask for ask in asked if not ask.sample.problem and self.gold_yes(ask.sample) is not None]
        if not (options.calibration and self.calibrated and asked):
            return
        requests = [Request(a.sample.id, a.messages, self.request_key(a.sample.id, a.control)) for a in asked]
        for ask, found in zip(asked, generator.yes_no(requests, f"{self.key}, yes or no")):
            if found is not None:
                about = {"p_yes": found.p_yes, "yes_no_mass": found.mass, "gold_yes": self.gold_yes(ask.sample)}
                ask.note |= about

    def request_key(self, sample_id: str, control: str | None, turn: int = 1) -> str:
        """Names one question of a run for the journal, from which a killed run is resumed."""
        return reply_key(self.key, control, turn, sample_id)

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
                Ask(sample, partial(shuffle_videos, sample, seed, generator.backend.processor), control, {})
                for sample in samples
                if not sample.problem and any(item["type"] == "video" for item in media_items(sample.prompt))
            ]
        raise ValueError(f"{type(self).__name__} does not know the control {control!r}")

    def metrics_for(self, sample: Sample) -> Sequence[str]:
        """Those of `metrics` that can judge this sample, its own headline score first.

        A row's other scores are None, which no mean counts: so a figure is over closed questions alone, say. A sample
        of which too little is known must get all of them, so that it counts as wrong wherever it may belong.
        """
        return self.metrics

    def row(self, sample: Sample, reply: Reply, control: str | None, note: dict[str, Any]) -> Row:
        """One scored answer. What failed scores zero under every metric; a missing gold answer is a failure too."""
        unscored = sample.unscored
        error = reply.error or (None if sample.answers or unscored else "no gold answer in the record")
        metrics = self.metrics_for(sample)
        try:
            scores = scores_of(metrics, reply.text, sample.answers, sample.scoring, error, unscored)
        except Exception as failure:  # a gold answer or an option of the user's that the metric cannot take
            error = f"cannot be scored: {failure}"
            scores = dict.fromkeys(metrics, 0.0)
        scores = {**dict.fromkeys(self.metrics), **scores}
        row = {
            "id": sample.id,
            "task": self.key,
            "kind": sample.kind,
            "group": sample.group,
            "control": control,
            "question": sample.question,
            "media": sample.media,
            "prompt": reply.prompt,
            "prompt_tokens": reply.prompt_tokens,
            "media_tokens": reply.media_tokens,
            "input_hash": reply.input_hash,
            "output": reply.text,
            "new_tokens": reply.tokens,
            "stopped": reply.stopped,
            "seconds": reply.seconds,
            "answers": sample.answers,
            "scoring": sample.scoring,
            "score": scores[metrics[0]],
            "scores": scores,
            "error": error,
            **note,
        }
        row |= {"kinds": sample.kinds} if sample.kinds != [sample.kind] else {}
        return {**row, "unscored": unscored} if unscored else row

    def aggregates(self) -> dict[str, Aggregate]:
        """The figures of the task, headline first, each a function of its rows; by default the mean of each metric."""
        return {name: Mean(name) for name in self.metrics}

    @property
    def headline(self) -> str:
        return next(iter(self.aggregates()))

    def counted(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that the headline figure is about; all of them unless a task says otherwise."""
        return list(rows)

    def figures(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The task's entry in the stage table: headline and further metrics, n, kinds, controls, failures."""
        asked = [row for row in rows if row["control"] is None]
        estimates = {name: interval(aggregate, asked) for name, aggregate in self.aggregates().items()}
        if judged := [row for row in asked if JUDGE in row["scores"]]:
            estimates[JUDGE] = interval(Mean(JUDGE), judged)
        weighed = [row for row in asked if row.get("p_yes") is not None]
        if weighed:
            estimates |= {figure.name: interval(figure(), weighed) for figure in calibration.FIGURES}
        figures: dict[str, Any] = {name: _rounded(estimate.value) for name, estimate in estimates.items()}
        figures |= {"n": len(asked), "failed": sum(row["error"] is not None for row in asked)}
        if unscored := sum("unscored" in row for row in asked):
            figures["unscored"] = unscored
        figures["intervals"] = {
            name: [_rounded(estimate.low), _rounded(estimate.high)]
            for name, estimate in estimates.items()
            if estimate.low is not None
        }
        by_kind: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            for kind in dict.fromkeys(kinds_of(row)):
                by_kind[kind].append(row)
        figures["kinds"] = {kind: self.kind_figures(by_kind[kind]) for kind in sorted(by_kind)}
        figures["controls"] = self.control_figures(rows)
        if weighed:
            figures["calibration"] = calibration.reliability(weighed)
        if pairs := self.control_pairs(rows):
            figures["control_pairs"] = pairs
        return figures

    def headline_of(self, rows: Sequence[Row]) -> float | None:
        return _rounded(self.aggregates()[self.headline].value(rows))

    def kind_figures(self, rows: Sequence[Row]) -> dict[str, Any]:
        asked = [row for row in rows if row["control"] is None]
        aggregates = self.aggregates()
        shown = {name: _rounded(aggregates[name].value(asked)) for name in self.figures_by_kind or (self.headline,)}
        return {**shown, **self.control_figures(rows), "n": len(asked)}

    def control_figures(self, rows: Sequence[Row]) -> dict[str, float | None]:
        """The headline metric under each control that was run.

        A control that could not be applied (two frames cannot be shuffled, the donor's file is broken) is left out:
        counting it as wrong, as a failed question is, would flatter the model.
        """
        done = [row for row in rows if row["control"] and not row["error"]]
        return {
            control: self.headline_of([row for row in done if row["control"] == control])
            for control in self.controls
            if any(row["control"] == control for row in done)
        }

    def control_pairs(self, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
        """Controls over fewer questions than the headline, which must not be read against it.

        `{control: {"n": questions under it, "of": those of the headline, "without": the headline over these n}}`; n is
        0 where the control was wanted but no question allowed it.
        """
        aggregate = self.aggregates()[self.headline]
        asked = [row for row in rows if row["control"] is None]
        aggregate = aggregate.prepared(asked)
        asked = [row for row in asked if aggregate.statistics(row) is not None]
        pairs = {}
        for control in self.controls:
            tried = {row["id"] for row in rows if row["control"] == control}
            covered = {row["id"] for row in rows if row["control"] == control and not row["error"]}
            both = [row for row in asked if row["id"] in covered]
            wanted = tried or any(control in row.get(UNCONTROLLED, ()) for row in asked)
            if wanted and len(both) < len(asked):
                pairs[control] = {"n": len(both), "of": len(asked), "without": self.headline_of(both)}
        return pairs


def _free_id(sample_id: str, number: int, taken: set[str]) -> str:
    """`id~2` for the second sample of an id, or the next number that no other sample has; it is taken then."""
    while f"{sample_id}~{number}" in taken:
        number += 1
    taken.add(f"{sample_id}~{number}")
    return f"{sample_id}~{number}"


def kinds_of(row: Row) -> list[str]:
    """The sub-scores a row counts in, mostly one."""
    return row.get("kinds") or [row["kind"]]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def with_video_options(messages: Messages, video: Mapping[str, Any]) -> Messages:
    """The conversation with `video` (max_frames, fps) on every video that does not say otherwise itself."""
    return [
        {**m, "content": [{**video, **item} if item["type"] == "video" else item for item in m["content"]]}
        for m in messages
    ]


def shuffle_videos(sample: Sample, seed: int, processor: Any) -> Messages:
    """The prompt with every video given as frames out of order; time stamps stay in order, as if filmed that way.

    Raises ValueError for a video of fewer than 3 frames: two frames can only be kept or reversed.
    """
    from vlm.chat import VIDEO_OPTIONS
    from vlm.prompt_media import open_video

    messages = []
    for message in sample.prompt:
        content = []
        for place, item in enumerate(message["content"]):
            if item["type"] == "video":
                own = {key: item[key] for key in VIDEO_OPTIONS if key in item}
                frames, timestamps = open_video(item["video"], None, processor.video, own)  # as the processor does
                order = shuffled_order(len(frames), seed, f"{sample.id}:{place}")
                if order is None:
                    raise ValueError(f"{item['video']}: {len(frames)} frames cannot be shuffled, 3 are needed")
                # all of them: the processor's own limit may be lower than the one they were sampled under
                item = {
                    "type": "video", "video": frames[order], "timestamps": list(timestamps), "max_frames": len(order),
                }  # fmt: skip
            content.append(item)
        messages.append({**message, "content": content})
    return messages
