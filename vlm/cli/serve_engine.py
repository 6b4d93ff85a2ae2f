"""One model behind one thread: requests wait in line, and greedy ones of the same limits share a batch. Not a command.

The evaluation's own backend answers, so a served model says word for word what `eval/run.py` hears from it.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from vlm.cli.serve_protocol import ChatRequest, RequestError

logger = logging.getLogger(__name__)

MAX_WAITING = 512  # requests; more are sent away, to come again


class ClientGoneError(Exception):
    """Nobody reads the answer any more; raised by `Job.emit`, it ends generation."""


@dataclass
class Job:
    """A request in line. `emit` takes the words as they come; None: nobody listens before the end."""

    request: ChatRequest
    encoded: object
    emit: Callable[[str], None] | None = None
    reply: Future = field(default_factory=Future)

    @property
    def limits(self) -> tuple:
        return self.request.max_new_tokens, self.request.stop

    @property
    def is_alone(self) -> bool:
        """Sampling draws from one stream of random numbers, and a streamer follows one row."""
        return self.emit is not None or self.request.temperature > 0


class Engine:
    """Answers requests of many threads with one `eval.backends.Backend` that lives in this process."""

    def __init__(self, backend, batch_size: int):
        self.backend, self.batch_size = backend, batch_size
        self._line: deque[Job] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def prepare(self, request: ChatRequest) -> Job:
        """Opens the media and writes the prompt, in the caller's thread. Raises RequestError for bad ones."""
        if len(self._line) >= MAX_WAITING:
            raise RequestError(f"{MAX_WAITING} requests are waiting already; try again later", 503)
        try:
            return Job(request, self.backend.encode(request.messages, "request"))
        except Exception as error:  # whatever a stranger's bytes do to a reader is the request's fault
            logger.debug("refused", exc_info=True)
            raise RequestError(f"{type(error).__name__}: {error}", param="messages") from error

    def submit(self, job: Job) -> Future:
        """Puts a job in line; its future gives an `eval.backends.Reply`."""
        with self._changed:
            if not self._open:
                raise RequestError("the server is closing", 503)
            self._line.append(job)
            self._changed.notify()
        return job.reply

    def close(self) -> None:
        """Sends waiting requests away and ends the thread after the batch it is at."""
        with self._changed:
            self._open = False
            waiting, self._line = list(self._line), deque()
            self._changed.notify()
        for job in waiting:
            job.reply.set_exception(RequestError("the server is closing", 503))
        self._thread.join()

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            self._work(batch)

    def _next(self) -> list[Job] | None:
        """The first in line and those that can be answered with it; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._line or not self._open)
            if not self._open:
                return None
            first = self._line.popleft()
            batch, others = [first], deque()
            for job in self._line:
                fits = len(batch) < self.batch_size and not first.is_alone and not job.is_alone
                (batch if fits and job.limits == first.limits else others).append(job)
            self._line = others
            return batch

    def _work(self, batch: list[Job]) -> None:
        from eval.generation import free_memory, is_out_of_memory

        try:
            replies = self._answers(batch)
        except Exception as error:
            if is_out_of_memory(error):
                free_memory()
            if len(batch) > 1:  # the one at fault must not cost the others their answers
                for job in batch:
                    self._work([job])
                return
            if not isinstance(error, ClientGoneError):
                logger.warning("a request failed: %s: %s", type(error).__name__, error)
            batch[0].reply.set_exception(error)
            return
        for job, reply in zip(batch, replies):
            job.reply.set_result(reply)

    def _answers(self, batch: list[Job]) -> list:
        import torch

        from eval.backends.base import Decoding
        from eval.backends.streaming import TextStream

        first = batch[0].request
        decoding, how, stream = Decoding(first.max_new_tokens, first.stop), {}, None
        if first.temperature > 0:
            how = {"do_sample": True, "temperature": first.temperature, "top_p": first.top_p, "top_k": 0}
            if first.seed is not None:
                torch.manual_seed(first.seed)
        if batch[0].emit is not None:
            stream = how["streamer"] = TextStream(self.backend, decoding, batch[0].emit)
        replies = self.backend.generate([job.encoded for job in batch], decoding, **how).replies
        for job, reply in zip(batch, replies):
            reply.prompt_tokens = reply.prompt_tokens or job.encoded.length
            reply.media_tokens = reply.media_tokens or job.encoded.media_tokens
        if stream is not None:
            stream.rest(replies[0].text)
        return replies
