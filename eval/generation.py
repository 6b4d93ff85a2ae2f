"""Answers in batches: encode ahead, sort by length, generate, and put the answers back in order.

Sorting keeps padding small (`sort=False` is the slow twin). Greedy decoding makes an answer depend on its own prompt
only, so neither order, batch size nor the number of processes changes it. A request that cannot be encoded or answered
becomes a `Reply` with an `error`, never a crash; out of memory halves the batch, for good.
"""

from __future__ import annotations

import gc
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

from eval.backends.base import Backend, Clock, Decoding, Encoded, Messages, Reply
from eval.backends.yes_no import YesNo
from eval.hashing import input_hash
from eval.journal import Journal, yes_no_key
from eval.ranks import Ranks

logger = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")

# Encoded prompts wait in memory to be sorted, at most so many batches or bytes of them.
WINDOW_BATCHES = 16
WINDOW_BYTES = 1 << 30


@dataclass(frozen=True)
class Request:
    """A prompt to be answered. `messages` may be a function, so that media are opened only when their turn comes.

    `key` names the request within a run for the journal; default: the sample's id.
    """

    id: str
    messages: Messages | Callable[[], Messages]
    key: str = ""

    @property
    def name(self) -> str:
        return self.key or self.id


@dataclass
class Waiting:
    """A request of this process with its place among them, encoded."""

    place: int
    request: Request
    encoded: Encoded
    input_hash: str
    seconds: float


class Inline:
    """A pool of no threads: the work is done when its result is asked for."""

    class Later:
        def __init__(self, work: Callable[..., Any], arguments: tuple) -> None:
            self.result = partial(work, *arguments)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Later:
        return self.Later(work, arguments)


class Generator:
    """Asks one backend. Counts prompts, tokens and seconds for the results file."""

    def __init__(
        self,
        backend: Backend,
        batch_size: int = 64,
        progress: bool = True,
        *,
        journal: Journal | None = None,
        ranks: Ranks | None = None,
        workers: int | None = None,
        sort: bool = True,
    ) -> None:
        """`workers`: threads that encode ahead; 0: none. Default: 2, or 0 where answering needs the same processor."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.backend, self.journal, self.ranks = backend, journal, ranks or Ranks()
        self.batch_size = min(batch_size, backend.max_batch_size() or batch_size)
        self.progress = progress and self.ranks.rank == 0
        self.workers = (0 if backend.on_cpu else 2) if workers is None else workers
        self.sort = sort
        self.spent = Clock()

    def answer(self, requests: Sequence[Request], decoding: Decoding, label: str = "") -> list[Reply]:
        """One reply per request, in their order. With several processes each answers its share."""
        mine = self.ranks.share(requests)
        replies: list[Reply | None] = [self.journal.get(r.name) if self.journal else None for r in mine]
        left = [(place, request) for place, request in enumerate(mine) if replies[place] is None]
        with tqdm(
            total=len(mine), initial=len(mine) - len(left), desc=label, unit="q", disable=not self.progress,
            mininterval=0.5,
        ) as bar, self._pool() as pool:  # fmt: skip
            for window in self._windows(left, pool):
                waiting = []
                for place, outcome in window:
                    if isinstance(outcome, Reply):
                        replies[place] = outcome
                        bar.update()
                    else:
                        waiting.append(outcome)
                if self.sort:
                    # Longest first: if memory runs out it does so at once, and the time left is no wishful one.
                    waiting.sort(key=lambda one: (-one.encoded.length, one.place))
                while waiting:
                    batch, waiting = waiting[: self.batch_size], waiting[self.batch_size :]
                    for one, reply in zip(batch, self._answer_batch(batch, decoding)):
                        replies[one.place] = reply
                    if self.journal:
                        self.journal.add({one.request.name: replies[one.place] for one in batch})
                    bar.update(len(batch))
        return self.ranks.gather([reply if reply is not None else Reply(error="no reply") for reply in replies])

    def yes_no(self, requests: Sequence[Request], label: str = "") -> list[YesNo | None]:
        """P(yes) of each prompt, in their order; None where the backend cannot tell or a prompt could not be weighed.

        What is known from a run that was killed is not asked again.
        """
        if type(self.backend).yes_no is Backend.yes_no:
            logger.warning("P(yes) cannot be known through %s: no calibration", self.backend.name)
            return [None] * len(requests)
        found: list[YesNo | None] = []
        mine = self.ranks.share(requests)
        bar = tqdm(total=len(mine), desc=label, unit="q", disable=not self.progress, mininterval=0.5)
        for start in range(0, len(mine), self.batch_size):
            part = mine[start : start + self.batch_size]
            found += self._weighed(part)
            bar.update(len(part))
        bar.close()
        return self.ranks.gather(found)

    def _weighed(self, requests: Sequence[Request]) -> list[YesNo | None]:
        """As `yes_no`, of one batch; one that fails is weighed prompt by prompt, and only what fails alone is lost."""
        keys = [yes_no_key(request.name) for request in requests]
        known = [self.journal.get(key) if self.journal else None for key in keys]
        left = [request for request, reply in zip(requests, known) if reply is None]
        try:
            encoded = [
                self.backend.encode(one.messages() if callable(one.messages) else one.messages, one.id) for one in left
            ]
            weighed = (self.backend.yes_no(encoded) if left else []) or [None] * len(left)
        except Exception as error:  # whatever a user's file does to a reader must cost one sample, not the run
            if is_out_of_memory(error):
                free_memory()
            if len(requests) > 1:
                return [one for request in requests for one in self._weighed([request])]
            logger.warning("%s: P(yes) not known: %s: %s", left[0].id, type(error).__name__, error)
            weighed = [None]
        fresh = iter(weighed)
        found = [next(fresh) if reply is None else YesNo(*json.loads(reply.text)) for reply in known]
        if self.journal:
            texts = {key: Reply(json.dumps([one.p_yes, one.mass])) for key, one in zip(keys, found) if one is not None}
            self.journal.add({key: reply for key, reply in texts.items() if self.journal.get(key) is None})
        return found

    def share_out(self, items: Sequence[T], work: Callable[[T], R], label: str = "") -> list[R]:
        """`work` done on every item, one by one, shared between the processes; results in the order of `items`."""
        bar = tqdm(self.ranks.share(items), desc=label, unit="q", disable=not self.progress, mininterval=0.5)
        return self.ranks.gather([work(item) for item in bar])

    @contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor | Inline]:
        if not self.workers:
            yield Inline()
            return
        pool = ThreadPoolExecutor(self.workers, "encode")
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)  # after an interrupt nobody waits for what was to be opened

    def _windows(
        self, requests: list[tuple[int, Request]], pool: ThreadPoolExecutor | Inline
    ) -> Iterator[list[tuple[int, Waiting | Reply]]]:
        """Requests encoded, a window at a time; while one window is answered the next is already being encoded."""
        ahead: deque[tuple[int, Future | Inline.Later]] = deque()
        queue = iter(requests)
        seen, held_so_far = 0, 0

        def fill() -> None:
            most = WINDOW_BATCHES * self.batch_size
            fits = WINDOW_BYTES * seen // held_so_far if held_so_far else most if seen else 0
            room = max(self.batch_size, min(most, fits))
            while len(ahead) < room and (pair := next(queue, None)) is not None:
                ahead.append((pair[0], pool.submit(self._encode, *pair)))

        fill()
        while ahead:
            window, held, most = [], 0, WINDOW_BATCHES * self.batch_size
            while ahead and len(window) < most and not (held > WINDOW_BYTES and len(window) >= self.batch_size):
                place, future = ahead.popleft()
                outcome = future.result()
                window.append((place, outcome))
                nbytes = outcome.encoded.nbytes if isinstance(outcome, Waiting) else 0
                seen, held, held_so_far = seen + 1, held + nbytes, held_so_far + nbytes
                self.spent.encode_seconds += outcome.seconds
                fill()
            yield window

    def _encode(self, place: int, request: Request) -> Waiting | Reply:
        started = time.perf_counter()
        try:
            messages = request.messages() if callable(request.messages) else request.messages
            encoded = self.backend.encode(messages, request.id)
            return Waiting(place, request, encoded, input_hash(messages), time.perf_counter() - started)
        except Exception as error:  # whatever a user's file does to a reader must cost one sample, not the run
            reply = self._failed(request.id, error)
            reply.seconds = time.perf_counter() - started
            return reply

    def _answer_batch(self, batch: list[Waiting], decoding: Decoding) -> list[Reply]:
        """Replies of one batch. A failing batch is halved until the sample at fault stands alone."""
        started = time.perf_counter()
        failure: Exception | None = None
        try:
            outcome = self.backend.generate([one.encoded for one in batch], decoding)
        except Exception as error:
            failure = error.with_traceback(None)  # its frames hold the tensors that did not fit
        if failure is not None:
            return self._halved(batch, decoding, failure)
        took = time.perf_counter() - started
        for one, reply in zip(batch, outcome.replies):
            reply.prompt, reply.input_hash = self.backend.rendered(one.encoded), one.input_hash
            reply.prompt_tokens = reply.prompt_tokens or one.encoded.length
            reply.media_tokens = reply.media_tokens or one.encoded.media_tokens
            reply.seconds = round(one.seconds + took / len(batch), 4)
        self._count(outcome.replies, took, outcome.prefill_seconds)
        return outcome.replies

    def _halved(self, batch: list[Waiting], decoding: Decoding, failure: Exception) -> list[Reply]:
        memory = is_out_of_memory(failure)
        if memory:
            free_memory()
        if len(batch) == 1:
            return [self._failed(batch[0].request.id, failure, batch[0])]
        half = len(batch) // 2
        if memory and half < self.batch_size:
            self.batch_size = half
            logger.warning("out of memory with %d prompts at once; going on with batches of %d", len(batch), half)
        elif not memory:
            name = type(failure).__name__
            logger.warning("a batch of %d failed (%s: %s); trying its halves", len(batch), name, failure)
        return self._answer_batch(batch[:half], decoding) + self._answer_batch(batch[half:], decoding)

    def _count(self, replies: list[Reply], took: float, prefill: float | None) -> None:
        self.spent.requests += len(replies)
        self.spent.prompt_tokens += sum(reply.prompt_tokens for reply in replies)
        self.spent.media_tokens += sum(reply.media_tokens for reply in replies)
        self.spent.new_tokens += sum(reply.tokens for reply in replies)
        self.spent.generate_seconds += took
        self.spent.prefill_seconds += prefill or 0.0

    def _failed(self, sample_id: str, error: Exception, one: Waiting | None = None) -> Reply:
        logger.debug("sample %s failed: %s: %s", sample_id, type(error).__name__, error)
        shown = {"prompt": self.backend.rendered(one.encoded), "input_hash": one.input_hash} if one else {}
        return Reply(**shown, error=f"{type(error).__name__}: {error}")

    def total(self) -> Clock:
        """What all processes have spent so far."""
        return Clock.total(self.ranks.of_all(self.spent))


def is_out_of_memory(error: BaseException) -> bool:
    """Also those that come as plain RuntimeErrors, from the CPU allocator or a library's kernel."""
    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def free_memory() -> Any:
    """Gives back what a failed batch held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
