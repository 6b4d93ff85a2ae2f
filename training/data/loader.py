"""Endless batches of one rank: a plan says which samples, worker processes encode and collate whole batches.

What to read is decided in the main process alone, from tickets and integers, so batches are the same for any number of
workers and any prefetch, and `state_dict` is exactly the place behind the last batch handed out, however far the
workers have read ahead.
"""

import atexit
import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from training.data.collation import PackingCollator, PaddingCollator, nothing_to_learn
from training.data.dataset import TrainingDataset
from training.data.feed import Ticket
from training.data.plan import Plan, Rows
from training.preemption import SIGNALS
from vlm.errors import SampleError
from vlm.prompt_sizes import PromptSize

CHUNK = 32  # tickets that are measured at a time in a worker


class BatchLoader:
    """What the trainer iterates over: endless, and always on from where it stands.

    Args:
        plan: Which samples make a batch.
        work: rows of tickets -> batch; runs in the workers.
        num_workers: Processes that prepare batches; 0: this one.
        prefetch: Batches each of them prepares ahead.
        pin_memory: Copy batches to page-locked memory, for CUDA.
    """

    def __init__(
        self, plan: Plan, work: "BatchWork", num_workers: int = 0, prefetch: int = 2, pin_memory: bool = False
    ) -> None:
        self.plan, self.work = plan, work
        self._options = worker_options(num_workers, prefetch) | {"pin_memory": pin_memory}
        self._mark = plan.mark()
        self._is_behind = False  # whether the plan has gone on from `_mark`

    @property
    def dataset(self) -> TrainingDataset:
        return self.work.dataset

    @property
    def collate_fn(self) -> PaddingCollator:
        """Encoded samples -> a padded batch, for held-out data."""
        return PaddingCollator(self.dataset.processor)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._is_behind:
            self.load_state_dict(self.state_dict())
        self._is_behind = True
        marks: deque[Any] = deque()

        def planned() -> Iterator[Rows]:
            for rows, mark in self.plan.batches():
                marks.append(mark)
                yield rows

        for batch in _through_workers(self.work, planned(), self._options):
            self._mark = marks.popleft()
            self.plan.release(self._mark)
            yield batch

    def state_dict(self) -> dict:
        """JSON of the place behind the last batch handed out."""
        return self.plan.state(self._mark)

    def load_state_dict(self, state: dict) -> None:
        """Go on behind what was handed out when `state` was taken. Raises DataError when it belongs to other data."""
        self.plan.load_state_dict(state)
        self._mark = self.plan.mark()
        self._is_behind = False

    def report(self) -> dict:
        """Statistics of what was handed out: {"packing": {...}}, or nothing for padded batches."""
        return self.plan.report(self._mark)


class BatchWork(Dataset):
    """Rows of tickets -> a batch; see `Rows`. Instances travel to worker processes.

    packed: rows become packed rows; otherwise every sample is a padded row.
    replace: a bad sample is replaced by its neighbour (map-style mixtures alone) instead of left out.
    """

    def __init__(self, dataset: TrainingDataset, packed: bool = False, replace: bool = False) -> None:
        self.dataset, self.packed, self.replace = dataset, packed, replace
        self.pad, self.pack = PaddingCollator(dataset.processor), PackingCollator(dataset.processor)

    def __getitem__(self, rows: Rows) -> dict[str, Any]:
        with one_thread():
            return self._batch(rows)

    def _batch(self, rows: Rows) -> dict[str, Any]:
        if self.replace:
            return self.pad([self.dataset.get(ticket.index, ticket.epoch) for row in rows for ticket in row])
        samples = [[one for ticket in row if (one := self.dataset.take(ticket)) is not None] for row in rows]
        if not any(samples):
            samples = [[nothing_to_learn(self.dataset.processor)]]
        return self.pack(samples) if self.packed else self.pad([one for row in samples for one in row])


class Measurer:
    """Tickets -> (ticket, size, None for a bad one) in the same order; in a process of its own where there are workers.

    Sizes of a map-style mixture are remembered, unless videos are pruned anew each epoch. Bad samples are counted here,
    in the main process.
    """

    def __init__(self, dataset: TrainingDataset, num_workers: int = 0, prefetch: int = 2) -> None:
        self.dataset = dataset
        self._options = worker_options(min(num_workers, 1), prefetch)
        remembers = dataset.samples is not None and dataset.video_pruning is None
        self._known = np.full((len(dataset), 2), -1, dtype=np.int32) if remembers else None

    def __call__(self, tickets: Iterable[Ticket]) -> Iterator[tuple[Ticket, PromptSize | None]]:
        tickets, chunks = iter(tickets), deque()
        size = CHUNK if self._options["num_workers"] else 1

        def unknown() -> Iterator[list[Ticket]]:
            while chunk := list(islice(tickets, size)):
                chunks.append([(ticket, self._is_known(ticket)) for ticket in chunk])
                yield [ticket for ticket, known in chunks[-1] if not known]

        for measured in _through_workers(MeasureWork(self.dataset), unknown(), self._options):
            found = iter(measured)
            for ticket, known in chunks.popleft():
                yield ticket, self._remembered(ticket) if known else self._counted(ticket, next(found))

    def _is_known(self, ticket: Ticket) -> bool:
        if self._known is None or ticket.index is None:
            return False
        return self._known[ticket.index, 0] >= 0 or self.dataset.bad.knows(ticket.index)

    def _remembered(self, ticket: Ticket) -> PromptSize | None:
        tokens, media_tokens = self._known[ticket.index].tolist()
        return None if self.dataset.bad.knows(ticket.index) else PromptSize(tokens, media_tokens)

    def _counted(self, ticket: Ticket, found: "PromptSize | SampleError") -> PromptSize | None:
        is_bad = isinstance(found, SampleError)
        self.dataset.counted(ticket, found if is_bad else None)
        if is_bad:
            return None
        if self._known is not None and ticket.index is not None:
            self._known[ticket.index] = found.tokens, found.media_tokens
        return found


def unmeasured(tickets: Iterable[Ticket]) -> Iterator[tuple[Ticket, PromptSize]]:
    """For plans that need no sizes."""
    for ticket in tickets:
        yield ticket, PromptSize(0)


class MeasureWork(Dataset):
    """Tickets -> sizes, or the errors of bad samples."""

    def __init__(self, dataset: TrainingDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, tickets: list[Ticket]) -> list[PromptSize | SampleError]:
        with one_thread():
            return [self._measured(ticket) for ticket in tickets]

    def _measured(self, ticket: Ticket) -> PromptSize | SampleError:
        try:
            return self.dataset.measure(ticket)
        except SampleError as error:
            # without what caused it, which need not travel between processes
            return SampleError(error.message, error.sample_id, error.path, error.reason)


class _Items(Sampler):
    """A sampler of ready-made items."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return self.items


@contextmanager
def one_thread() -> Iterator[None]:
    """Tensors of single samples are too small for several threads, which would only wait for one another."""
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)


def worker_options(num_workers: int, prefetch: int) -> dict[str, Any]:
    """Arguments of torch's DataLoader."""
    if not num_workers:
        return {"num_workers": 0}
    return {"num_workers": num_workers, "prefetch_factor": prefetch, "worker_init_fn": _outlive_signals}


def _outlive_signals(worker: int) -> None:
    """Launchers and schedulers signal whole groups of processes. A worker that died of it would take the trainer down
    before that has saved; workers end with their trainer anyway."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """At exit `multiprocessing` asks its helpers to leave by SIGTERM, which ours do not hear, and waits for them."""
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    if workers:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes their end for a failure
    for child in workers:
        child.kill()


def _through_workers(work: Dataset, items: Iterator[Any], options: dict[str, Any]) -> Iterator[Any]:
    """work[item] of each item, in order, from the worker processes of a DataLoader."""
    # a generator of its own: making an iterator must leave the model's random state alone
    generator = torch.Generator().manual_seed(0)
    yield from DataLoader(
        work, batch_size=None, sampler=_Items(items), collate_fn=_as_it_is, generator=generator, **options
    )


def _as_it_is(item: Any) -> Any:
    return item
