"""From a labelled set to dataset folders: run the experts image by image, then put the conversations together.

The first step is slow and kept on disk, in any number of processes; the second is quick, and is a function of the set,
the kept results and the seed alone. So a run that was killed goes on where it was, and workers change nothing.
"""

import errno
import functools
import logging
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from training.data.expert_dialogues.dialogues import NEGATIVES, PARTS, Dialogues, Work
from training.data.expert_dialogues.expert_runs import ExpertRuns, expert_version
from training.data.expert_dialogues.labelled_set import LabelledImage, Question, patient_numbers, read_labelled_set
from training.data.expert_dialogues.mixture_file import VILA_M3, check_mixture, mixture_of, mixture_text
from training.data.expert_dialogues.pictures import content_digest, image_items, image_modality
from training.data.expert_dialogues.shares import DEFAULT_SHARES
from training.data.expert_dialogues.single_questions import single_questions
from training.data.expert_dialogues.summary import Summary
from training.data.expert_dialogues.wording import Wording
from training.data.expert_dialogues.writing import CACHE, by_part, claim, write_parts
from vlm.errors import RadioVLMError, SampleError
from vlm.experts import ExpertError, expert_names, get_expert
from vlm.experts.body_part import card_fits
from vlm.experts.image_facts import image_facts
from vlm.experts.private_text import without_identifiers
from vlm.experts.session import frames
from vlm.experts.weights import why_not


@dataclass(frozen=True)
class Settings:
    """What a user chooses; see `radio-vlm make-expert-data --help`."""

    images: Path
    out: Path
    experts: tuple[str, ...] | None = None
    expert_weights: Path | None = None
    split: str = "train"
    seed: int = 0
    wording: Wording = field(default_factory=Wording)
    mixture: str | Mapping[str, Any] = VILA_M3
    shares: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_SHARES))
    originals: bool = False
    workers: int = 1
    limit: int | None = None


def make(settings: Settings, progress: bool = False) -> Summary:
    """Write the conversations. Raises `RadioVLMError` for what is wrong with the settings or the set."""
    started = time.monotonic()
    every = read_labelled_set(settings.images)
    images = [image for image in every if image.split == settings.split][: settings.limit]
    if not images:
        raise RadioVLMError(f"{settings.images}: no image is of the split {settings.split}")
    names = chosen_experts(settings, images)
    versions = {name: expert_version(name, settings.expert_weights) for name in names}
    possible = [*(PARTS["expert"].format(name=name) for name in names), NEGATIVES, PARTS["vqa"], PARTS["report"]]
    check_mixture(settings.mixture, possible)
    claim(settings.out, settings.split)
    summary, works = Summary(), []
    for work in worked(settings, images, versions, progress):
        summary.images += 1
        if isinstance(work, tuple):
            summary.problems.append(work)
        else:
            works.append(work)
            summary.add_results(work.image.where, work.founds)
    if not works:
        raise RadioVLMError(f"{settings.images}: no image could be read; the first: {': '.join(summary.problems[0])}")
    cards = [get_expert(name).card for name in names]
    dialogues = Dialogues(works, cards, patient_numbers(every), settings.wording, settings.shares, settings.seed)
    summary.topics = dialogues.known_topics()
    for work in works:
        summary.unused.update(name for name in work.image.labels if name not in summary.topics)
    for asks in dialogues.asks.values():
        for ask in asks:
            summary.judged[ask.found.expert, ask.topic.name] += ask.truth is not None
            if ask.disagrees:
                summary.disagree[ask.found.expert, ask.topic.name] += 1
    train = settings.split == "train"
    if train:
        rows = [row for work in works for row in dialogues.of(work)]
    else:
        rows = [("", record) for work in works for record in single_questions(dialogues, work)]
    if not rows:
        raise RadioVLMError(f"{settings.images}: nothing can be asked: no labels, questions or reports, no results")
    parts = by_part(rows)
    for records in parts.values():
        for record in records:
            summary.add_record(record)
    drawing = {found.expert for work in works for found in work.founds if found.drawn}
    header = {"task": "medical", "split": settings.split, "seed": settings.seed, "experts": list(names)}
    if not train:
        header["disagreement"] = settings.wording.disagreement()
    mixture = mixture_text(mixture_of(list(parts), drawing, settings.mixture)) if train else None
    write_parts(settings.out, parts, header, mixture)
    summary.seconds = time.monotonic() - started
    return summary


def chosen_experts(settings: Settings, images: Sequence[LabelledImage]) -> list[str]:
    """Names of the experts of the run, in the order in which a session offers them. Raises `RadioVLMError`."""
    if settings.experts is not None:
        for name in settings.experts:
            try:
                reason = why_not(get_expert(name), settings.expert_weights)
            except ExpertError as error:
                raise RadioVLMError(f"--experts: {error}") from error
            if reason:
                raise RadioVLMError(f"--experts: {name} cannot be used here: {reason}")
        return sorted(set(settings.experts))
    shown = {(image_modality(image), image_facts(image.path).body_part) for image in images}
    lacking = {name: why_not(get_expert(name), settings.expert_weights) for name in expert_names()}
    fit = [name for name in lacking if any(card_fits(get_expert(name).card, *one) for one in shown)]
    usable = [name for name in fit if lacking[name] is None]
    if not usable:
        why = "; ".join(f"{name}: {lacking[name]}" for name in fit) or "none reads their modalities and body parts"
        raise RadioVLMError(f"no expert can be used on these images: {why}")
    return usable


def worked(
    settings: Settings, images: Sequence[LabelledImage], versions: Mapping[str, str], progress: bool
) -> Iterator[Work | tuple[str, str]]:
    """Every image converted and run, in order; (file:line, why) in place of one that cannot be read."""
    from tqdm import tqdm

    originals = settings.originals or settings.split != "train"
    place = Place(settings.out, originals, dict(versions), settings.expert_weights)
    bar = functools.partial(tqdm, total=len(images), desc="images", unit="image", disable=not progress)
    if settings.workers <= 1:
        runs = place.open()
        try:
            yield from bar(work_on(place, runs, image) for image in images)
        finally:
            runs.close()
        return
    # Forked workers know every expert that this process knows, a user's own too; nothing here has started threads.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(settings.workers, context, initializer=_begin, initargs=(place,)) as pool:
        try:
            yield from bar(pool.map(_work, images))
        except BrokenProcessPool as error:
            message = (
                "a worker process ended (out of memory?); what was done is kept: run it again, with fewer --workers"
            )
            raise RadioVLMError(message) from error


@dataclass(frozen=True)
class Place:
    """Where work is kept and what with: all that a worker process needs."""

    out: Path
    originals: bool
    versions: dict[str, str]
    weights: Path | None

    def open(self) -> ExpertRuns:
        """The experts, none of them loaded yet."""
        return ExpertRuns(self.out / CACHE / "results", self.versions, self.weights)


def work_on(place: Place, runs: ExpertRuns, image: LabelledImage) -> Work | tuple[str, str]:
    """Convert one image and run its experts, or say why it cannot be read; one broken file ends no run."""
    try:
        digest = content_digest(image.path)
        items = image_items(image, digest, place.out, place.out / CACHE / "pictures", place.originals)
        modality = image_modality(image)
        part = image_facts(image.path).body_part
        return Work(without_names(image), digest, items, modality, part, tuple(runs.run(image, digest, modality)))
    except SampleError as error:
        return image.where, error.message
    except (ImportError, RadioVLMError):
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise RadioVLMError(f"--out {place.out}: {error.strerror}; what was done is kept") from error
        return image.where, error.strerror or type(error).__name__
    except Exception as error:  # damaged files raise every kind, with words that quote them
        return image.where, f"cannot be read ({type(error).__name__} in {frames(error)})"


def without_names(image: LabelledImage) -> LabelledImage:
    """The image with what its header states of the patient taken out of the user's own texts; out of questions and
    reports also the word by which the list calls the patient (a label may be that number by chance)."""
    identifiers = image_facts(image.path).identifiers

    def clean(text: str) -> str:
        return without_identifiers(text, image.path, (*identifiers, image.patient))

    qa = tuple(Question(clean(one.question), clean(one.answer), clean(one.kind)) for one in image.qa)
    labels = {name: without_identifiers(value, image.path, identifiers) for name, value in image.labels.items()}
    return replace(image, qa=qa, labels=labels, report=clean(image.report) if image.report else None)


_OPEN: dict[str, Any] = {}


def _begin(place: Place) -> None:
    """In a worker process: its own experts, one torch thread, no interruptions of its own."""
    import signal
    import sys

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("vlm.experts").setLevel(logging.WARNING)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    _OPEN.update(place=place, runs=place.open())


def _work(image: LabelledImage) -> Work | tuple[str, str]:
    return work_on(_OPEN["place"], _OPEN["runs"], image)
