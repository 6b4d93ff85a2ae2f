"""The torch Dataset of a training run: Sample -> `processor.encode`, with a cache and a policy for bad samples.

In padded batches of a map-style mixture a bad sample is replaced by the next good one of its source, found by index
alone: every rank and every repetition of the run finds the same, and all ranks keep the same number of samples a step.
Packs and streams leave it out (`take`).
"""

import logging
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset, get_worker_info

from training.data.bad_samples import BadSamples
from training.data.cache import EncodedCache
from training.data.feed import Ticket
from training.data.lengths import estimated_lengths
from training.data.mixture import Mixture
from training.data.sample import Sample
from vlm.errors import SampleError
from vlm.prompt_sizes import PromptSize

logger = logging.getLogger(__name__)
UNPLANNED = -1  # number of a ticket that no feed gave
GRIDS = {"image_grid_hw", "video_grid_thw"}


class TrainingDataset(Dataset):
    """`dataset[i]`: the encoded sample of static index i (1-D tensors as `processor.encode` returns them, plus
    "sample_id", "source").

    samples: a Mixture or any sequence of Samples that has `order(epoch)` if it is to be shuffled; None: tickets bring
    their samples (streams).
    max_length: longer samples are bad samples; nothing is ever cut.
    bad_share_limit: share of bad samples above which TooManyBadSamples is raised.
    cache: keep encoded samples in memory (for corpora that fit; use it with num_workers=0, or call `warm` before
    workers start).
    report_path: where bad samples are written down, one JSON object a line.
    video_pruning: (lowest, highest) share of video tokens left out, drawn anew for every sample and epoch; see
    `vlm.evs`. None: what the processor says.
    seed: of these draws.
    """

    def __init__(
        self,
        samples: Mixture | Sequence[Sample] | None,
        processor: Any,
        max_length: int | None = None,
        bad_share_limit: float = 0.01,
        cache: bool | EncodedCache = False,
        report_path: str | Path | None = None,
        video_pruning: tuple[float, float] | None = None,
        seed: int = 0,
    ):
        self.video_pruning, self.seed = video_pruning, seed
        self.samples, self.processor, self.max_length = samples, processor, max_length
        self.bad = BadSamples(None if samples is None else len(samples), bad_share_limit, report_path)
        self.cache = EncodedCache() if cache is True else (None if cache is False else cache)
        self._lengths: np.ndarray | None = None
        self._ready: dict[tuple, dict[str, Any]] = {}  # measured and therefore encoded already, by ticket
        self._measured: set[int] = set()  # tickets of streams that were measured, and so counted, in this process

    def __len__(self) -> int:
        if self.samples is None:
            raise TypeError("a stream has no length")
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Of epoch 0; see `get`."""
        return self.get(index, 0)

    def get(self, index: int, epoch: int) -> dict[str, Any]:
        """The sample of a static index, or the good one that stands in for it, with the random choices of `epoch`."""
        for candidate in self._candidates(int(index)):
            if (encoded := self.take(Ticket(UNPLANNED, epoch, candidate))) is not None:
                return encoded
        raise SampleError(f"no sample of the training set can be used: all {len(self)} are bad", reason="no_samples")

    def take(self, ticket: Ticket) -> dict[str, Any] | None:
        """The encoded sample of a ticket; None, counted and written down, when it is bad."""
        if self.bad.knows(ticket.index):
            return None
        is_counted = ticket.index is None and ticket.number in self._measured
        self._measured.discard(ticket.number)
        encoded = self._ready.pop(_key(ticket), None)
        if encoded is None:
            try:
                encoded = self._pruned(ticket, self._whole(ticket))
            except SampleError as error:
                self.bad.add(ticket.index, error, self._where(ticket))
                return None
        if not is_counted:
            self.bad.good(ticket.index)
        return encoded

    def measure(self, ticket: Ticket) -> PromptSize:
        """How long the sample of a ticket will be, pixels unopened. Raises SampleError when that shows it is bad."""
        if self.cache is not None and ticket.index is not None:
            encoded = self._whole(ticket)
        else:
            sample = self._sample(ticket)
            encoded = measure_sample(sample, self.processor, self.max_length, **self._whole_videos())
            is_whole = not encoded.keys() & GRIDS  # text alone: already what `take` will give
            if is_whole and ticket.number != UNPLANNED and get_worker_info() is None:
                self._ready[_key(ticket)] = {**encoded, "sample_id": sample.id, "source": sample.source}
        if ticket.index is None and ticket.number != UNPLANNED and get_worker_info() is None:
            self._measured.add(ticket.number)
        return PromptSize.of(self._pruned(ticket, encoded))

    def counted(self, ticket: Ticket, error: SampleError | None) -> None:
        """Counts a sample that was measured elsewhere: good, or bad for the reason of `error`."""
        if error is None:
            self.bad.good(ticket.index)
        elif not self.bad.knows(ticket.index):
            self.bad.add(ticket.index, error, self._where(ticket))

    def encode(self, index: int) -> dict[str, Any]:
        """Reads and encodes one sample, videos whole. Raises SampleError when it is bad, whatever way it is bad."""
        return self._encode(self.samples[index])

    def _encode(self, sample: Sample) -> dict[str, Any]:
        return encode_sample(sample, self.processor, self.max_length, **self._whole_videos())

    def _whole_videos(self) -> dict[str, float]:
        """The options of `encode` that leave videos whole, where a rate of their own is drawn for them afterwards."""
        return {} if self.video_pruning is None else {"pruning_rate": 0.0}

    def _whole(self, ticket: Ticket) -> dict[str, Any]:
        """The encoded sample, videos whole, from the cache where there is one."""
        if ticket.index is None:
            return self._encode(ticket.sample)
        encoded = None if self.cache is None else self.cache.get(ticket.index)
        if encoded is None:
            encoded = self.encode(ticket.index)
            if self.cache is not None:
                self.cache.put(ticket.index, encoded)
        return encoded

    def _sample(self, ticket: Ticket) -> Sample:
        return ticket.sample if ticket.index is None else self.samples[ticket.index]

    def _pruned(self, ticket: Ticket, encoded: dict[str, Any]) -> dict[str, Any]:
        """With a rate drawn from seed, epoch and the sample's place or name: alike on every rank and after a resume."""
        if self.video_pruning is None or "video_grid_thw" not in encoded:
            return encoded
        which = zlib.crc32(ticket.sample.id.encode()) if ticket.index is None else ticket.index
        rate = np.random.default_rng([self.seed, 5, ticket.epoch, which]).uniform(*self.video_pruning)
        return self.processor.prune_videos(encoded, float(rate))

    def order(self, epoch: int) -> np.ndarray:
        """Static indices in visiting order, see Mixture.order; a plain sequence is visited as it stands."""
        return self.samples.order(epoch) if hasattr(self.samples, "order") else np.arange(len(self))

    def warm(self, progress: bool = True) -> None:
        """Encodes everything once: fills the cache, meets every bad sample, and makes `lengths` exact."""
        from tqdm import tqdm

        rows = tqdm(range(len(self)), desc="encoding samples", disable=not progress)
        self._lengths = np.array([len(self[index]["input_ids"]) for index in rows], dtype=np.int64)

    def lengths(self) -> np.ndarray:
        """Length of every sample for grouping, (N,): exact after `warm`, else estimated.

        Never from what the cache happens to hold: the batches of all ranks and of a resumed run must come out alike.
        """
        if self._lengths is None:
            self._lengths = estimated_lengths(self.samples, self.processor)
        return self._lengths

    def report(self) -> dict:
        """The account of bad samples over all processes, see BadSamples.report."""
        return self.bad.report()

    def _candidates(self, index: int):
        """The sample itself, then its neighbours in its own source, then everything after it."""
        yield index
        size = len(self)
        first, last = 0, size
        if hasattr(self.samples, "locate"):
            source, row = self.samples.locate(index)
            first, last = index - row, index - row + self.samples.sizes[source]
        yield from range(index + 1, last)
        yield from range(first, index)
        yield from ((last + step) % size for step in range(size - (last - first)))

    def _where(self, ticket: Ticket) -> str:
        if ticket.index is None:
            return ticket.sample.origin or ticket.sample.source
        return self.samples.where(ticket.index) if hasattr(self.samples, "where") else f"sample {ticket.index}"


def _key(ticket: Ticket) -> tuple[int, int, int | None]:
    return ticket.number, ticket.epoch, ticket.index


def no_answer(sample: Sample) -> SampleError:
    return sample.error("nothing to learn: no assistant turn says anything", "no_labels")


def encode_sample(sample: Sample, processor: Any, max_length: int | None = None, **options: Any) -> dict[str, Any]:
    """Sample -> `processor.encode` output plus "sample_id" and "source"; `options` go to `encode`.

    Raises SampleError for everything that is wrong with the data: media that are missing or broken, too long, nothing
    to learn. An unforeseen exception becomes a SampleError too (reason "unexpected"): one odd file must not end a run
    after hours, and the share limit ends it soon enough when the fault is not the file's.
    """
    encoded = _processed(sample, processor.encode, max_length, options)
    return {**encoded, "sample_id": sample.id, "source": sample.source}


def measure_sample(sample: Sample, processor: Any, max_length: int | None = None, **options: Any) -> dict[str, Any]:
    """Sample -> `processor.encode_text` output: all but the pixels, from text and media headers alone. Raises what
    `encode_sample` would, as far as these show it."""
    return _processed(sample, processor.encode_text, max_length, options)


def _processed(sample: Sample, function: Callable, max_length: int | None, options: dict[str, Any]) -> dict[str, Any]:
    if sample.problem is not None:
        raise sample.problem
    if not sample.has_answer():
        # An empty answer leaves the end-of-turn token to learn, which the processor takes for a label.
        raise no_answer(sample)
    try:
        options = {**sample.template, **options}
        return function(sample.resolved_messages(), max_length=max_length, sample_id=sample.id, **options)
    except SampleError as error:
        if error.sample_id is None:
            error.sample_id = sample.id
        raise
    except (MemoryError, ImportError):  # too little memory, or a package is missing: not the sample's fault
        raise
    except Exception as error:
        logger.debug("unexpected error in sample %s", sample.id, exc_info=True)
        raise sample.error(f"{type(error).__name__}: {error}", "unexpected") from error
