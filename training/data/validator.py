"""Looks at every sample before training does: what is wrong with it, and how long and how rich it is.

With a processor each sample is encoded exactly as in training (same code, same errors); without one its schema is read
and its media are decoded. A run that starts after a clean check meets no bad sample.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from training.data.dataset import encode_sample, no_answer
from training.data.sample import Sample
from training.data.sources import DataError, Source, open_source
from vlm.errors import RadioVLMError, SampleError

CHUNK = 8  # samples a worker hands back at once
CHECK_FRAMES = 8
WORKERS_FROM = 100  # samples; fewer are checked in this process


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `where`: file:line; `file`: the medium or data file at fault; `reason`: short code."""

    source: str
    where: str
    id: str | None
    reason: str
    message: str
    file: str | None = None


@dataclass(frozen=True)
class Facts:
    """What one readable sample holds. `tokens`: None without a processor."""

    id: str
    images: int = 0
    videos: int = 0
    documents: int = 0
    turns: int = 0
    tokens: int | None = None
    trained_tokens: int | None = None


@dataclass
class SourceReport:
    """One source: its problems, and statistics over its good samples."""

    path: str
    format: str = ""
    samples: int = 0
    bad: int = 0
    images: int = 0
    videos: int = 0
    documents: int = 0
    text_only: int = 0
    turns: int = 0
    tokens: dict[str, int] | None = None
    trained_tokens: int | None = None


@dataclass
class Report:
    sources: list[SourceReport] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def reasons(self) -> dict[str, int]:
        """Number of problems by reason, most frequent first."""
        return dict(Counter(problem.reason for problem in self.problems).most_common())

    def to_json(self) -> str:
        body = {"ok": self.ok, "reasons": self.reasons(), "sources": [asdict(one) for one in self.sources]}
        return (
            json.dumps(body | {"problems": [asdict(one) for one in self.problems]}, indent=1, ensure_ascii=False) + "\n"
        )


class Checker(Dataset):
    """`checker[i]` -> (problems, facts or None) of sample i. A torch Dataset, so that DataLoader workers run it."""

    def __init__(self, source: Source, size: int, processor: Any = None, max_length: int | None = None):
        self.source, self.size, self.processor, self.max_length = source, size, processor, max_length
        self._media: dict[tuple, SampleError | None] = {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[list[Problem], Facts | None]:
        try:
            sample = self.source[index]
        except SampleError as error:
            return [self._problem(index, error)], None
        errors, encoded = self._errors(sample)
        counts = Counter(kind for kind, _ in sample.media())
        facts = Facts(sample.id, counts["image"], counts["video"], counts["document"], len(sample.messages))
        if encoded is not None:
            trained = int((encoded["labels"] != -100).sum())
            facts = Facts(**(asdict(facts) | {"tokens": len(encoded["input_ids"]), "trained_tokens": trained}))
        return [self._problem(index, error, sample.id) for error in errors], facts

    def _errors(self, sample: Sample) -> tuple[list[SampleError], dict | None]:
        """All errors of a sample, and its encoding if there are none and there is a processor."""
        if self.processor is not None:
            try:
                return [], encode_sample(sample, self.processor, self.max_length)
            except SampleError as error:
                # Encoding stops at the first error; look at every medium to tell them all.
                return self._media_errors(sample) or [error], None
        errors = self._media_errors(sample)
        if not sample.has_answer():
            errors.append(no_answer(sample))
        return errors, None

    def _media_errors(self, sample: Sample) -> list[SampleError]:
        errors = []
        for item in sample.media_items():
            try:
                self._check_medium(item, sample.resolve(item[item["type"]]))
            except SampleError as error:
                errors.append(error)
        return errors

    def _check_medium(self, item: dict[str, Any], value: Any) -> None:
        """Decodes what an item shows, once a file: every chosen page of a document. Raises SampleError."""
        if not isinstance(value, (str, bytes)):
            return
        options = {key: item[key] for key in item if key not in ("type", item["type"])}
        key = (value if isinstance(value, str) else hash(value), repr(options))
        if key not in self._media:
            self._media[key] = None
            try:
                _decode({**item, item["type"]: value})
            except SampleError as error:
                self._media[key] = error
            except (MemoryError, ImportError):  # too little memory, or a package is missing: not the file's fault
                raise
            except Exception as error:  # one odd file must not end the check, as it does not end a run
                path = value if isinstance(value, str) else None
                self._media[key] = SampleError(f"{type(error).__name__}: {error}", path=path, reason="unexpected")
        if (error := self._media[key]) is not None:
            raise error

    def _problem(self, index: int, error: SampleError, sample_id: str | None = None) -> Problem:
        sample_id = sample_id or error.sample_id
        return Problem(self.source.name, self.source.where(index), sample_id, error.reason, error.message, error.path)


def _decode(item: dict[str, Any]) -> None:
    """Opens a medium as training will; of a video a few frames only."""
    from vlm.media import load_image, load_video
    from vlm.prompt_documents import expand_documents

    if item["type"] == "image":
        load_image(item["image"])
    elif item["type"] == "video":
        between = {key: item[key] for key in ("start", "end") if item.get(key) is not None}
        load_video(item["video"], max_frames=CHECK_FRAMES, **between)
    else:
        (message,) = expand_documents([{"role": "user", "content": [item]}])
        for part in message["content"]:
            if part["type"] == "image":
                part["image"].open()


def check(
    specs: Sequence[str | Path | dict[str, Any]],
    processor: Any = None,
    max_length: int | None = None,
    workers: int | None = None,
    progress: Callable[..., Any] | None = None,
) -> Report:
    """Checks every sample of the sources (specs as `open_source` takes them; `limit` is obeyed).

    processor: encodes each sample as training will; None: schema and media only.
    max_length: longest sample in tokens; needs a processor.
    workers: processes beside this one; default: one a core for large sources, none for small ones.
    progress: wraps an iterable, called with (iterable, total=, desc=), e.g. tqdm.
    """
    if max_length is not None and processor is None:
        raise RadioVLMError("max_length counts tokens, so it needs a model: give --model or leave --max-length out")
    report = Report()
    for spec in specs:
        try:
            source = open_source(spec)
        except DataError as error:
            path = str(spec["path"] if isinstance(spec, dict) else spec)
            report.problems.append(Problem(path, path, None, "unreadable_source", str(error), path))
            report.sources.append(SourceReport(path))
            continue
        limit = spec.get("limit") if isinstance(spec, dict) else None
        size = min(len(source), limit or len(source))
        checker = Checker(source, size, processor, max_length)
        results = _run(checker, workers, progress)
        problems, one = _summarise(source, results)
        report.problems += problems
        report.sources.append(one)
    return report


def _run(checker: Checker, workers: int | None, progress) -> list[tuple[list[Problem], Facts | None]]:
    if workers is None:
        workers = (os.cpu_count() or 1) if len(checker) > WORKERS_FROM else 0
    chunks = DataLoader(checker, batch_size=CHUNK, num_workers=workers, collate_fn=list)
    results = []
    bar = progress(total=len(checker), desc=checker.source.name) if progress else None
    for chunk in chunks:
        results += chunk
        if bar is not None:
            bar.update(len(chunk))
    if bar is not None:
        bar.close()
    return results


def _summarise(source: Source, results: list[tuple[list[Problem], Facts | None]]) -> tuple[list[Problem], SourceReport]:
    problems, good = [], []
    first_seen: dict[str, int] = {}
    bad = 0
    for index, (found, facts) in enumerate(results):
        if facts is not None and (first := first_seen.setdefault(facts.id, index)) != index:
            message = f"the id was used before, at {source.where(first)}"
            found = [*found, Problem(source.name, source.where(index), facts.id, "duplicate_id", message)]
        problems += found
        bad += bool(found)
        if facts is not None:
            good.append(facts)
    report = SourceReport(str(source.path), source.format, len(results), bad)
    report.images = sum(facts.images for facts in good)
    report.videos = sum(facts.videos for facts in good)
    report.documents = sum(facts.documents for facts in good)
    report.text_only = sum(not (facts.images or facts.videos or facts.documents) for facts in good)
    report.turns = sum(facts.turns for facts in good)
    tokens = [facts.tokens for facts in good if facts.tokens is not None]
    if tokens:
        low, median, high, top = np.percentile(tokens, [0, 50, 95, 100], method="lower").tolist()
        report.tokens = {"min": low, "median": median, "p95": high, "max": top, "total": sum(tokens)}
        report.trained_tokens = sum(facts.trained_tokens or 0 for facts in good)
    return problems, report
