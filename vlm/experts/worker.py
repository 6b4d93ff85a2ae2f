"""Runs one expert beside the session, so that a call that never returns ends for the session all the same.

A thread is the default: it needs no second copy of torch, sees the same device, takes any object, and costs nothing to
start. When its time is up it is told to stop, which ends Python code at its next step. Code inside a C call that does
not return (a kernel, a sleep, a dead network drive) cannot be stopped in a thread: it is left behind, never waited for
at exit, and until it ends the expert says that it is busy. `vlm.experts.process_worker` is the alternative that can
kill whatever runs.
"""

import ctypes
import queue
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlm.experts.protocol import Expert, ExpertResult
from vlm.experts.trigger import ExpertError

LOAD_SECONDS = 600.0
GRACE = 0.2


class ExpertTimeoutError(ExpertError):
    """An expert did not answer within its time."""


class RaisedError(RuntimeError):
    """What an expert raised where it cannot be raised again: arguments are the class's name and the message."""


class Stop(BaseException):  # noqa: N818 - no error: like KeyboardInterrupt it must pass `except Exception`
    """Thrown into a worker thread whose time is up."""


class ThreadWorker:
    """One expert in a thread of its own.

    make: returns the expert; called in the thread at the first call, and again after a time-out.
    """

    def __init__(self, name: str, make: Callable[[], Expert]) -> None:
        self.name, self.make = name, make
        self.expert: Expert | None = None
        self.run_seconds = 0.0  # of the last call, without loading
        self._thread: threading.Thread | None = None
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()

    def call(self, path: Path, arguments: tuple[str, ...], seconds: float) -> ExpertResult:
        """The expert's result. Raises `ExpertTimeoutError`, `ExpertError` while busy, and whatever the expert raises.

        Loading the expert at its first call has `LOAD_SECONDS` (or `seconds`, if longer) for itself.
        """
        if self._thread is not None and self._jobs is None:
            if self._thread.is_alive():
                raise ExpertError(f"{self.name} is still busy with an earlier call")
            self._thread = None
        if self.expert is None:
            self.expert = self._do(self.make, max(seconds, LOAD_SECONDS))
        expert = self.expert
        start = time.perf_counter()
        try:
            return self._do(lambda: run(expert, path, arguments), seconds)
        finally:
            self.run_seconds = time.perf_counter() - start

    def _do(self, work: Callable[[], Any], seconds: float) -> Any:
        if self._thread is None:
            self._jobs = queue.SimpleQueue()
            self._thread = threading.Thread(target=_serve, args=(self._jobs,), daemon=True, name=f"expert {self.name}")
            self._thread.start()
            weakref.finalize(self, self._jobs.put, None)  # a session that nobody closes leaves no thread either
        answer: queue.SimpleQueue = queue.SimpleQueue()
        self._jobs.put((work, answer))
        try:
            value, error = answer.get(timeout=seconds)
        except queue.Empty:
            self._abandon()
            raise ExpertTimeoutError(f"{self.name} did not answer within {seconds:g} s") from None
        except BaseException:  # Ctrl-C while waiting: the call goes no further either
            self._abandon()
            raise
        if error is not None and not isinstance(error, Exception):  # sys.exit() in an expert ends no session
            raise RaisedError(type(error).__name__, str(error))
        if error is not None:
            raise error
        return value

    def _abandon(self) -> None:
        """Tell the thread to stop, and use neither it nor what it was working on again."""
        thread, self.expert = self._thread, None
        self._jobs.put(None)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Stop))
        thread.join(GRACE)
        self._jobs = None  # marks the thread as given up

    def close(self) -> None:
        """Let go of the expert and end the thread; one that hangs is left behind."""
        self.expert = None
        if self._thread is not None and self._jobs is not None:
            self._jobs.put(None)
            self._thread.join(GRACE)
            self._thread = None


def run(expert: Expert, path: Path, arguments: tuple[str, ...]) -> ExpertResult:
    """One call of an expert, its own check of the arguments included."""
    expert.check(arguments)
    return expert.run(path, arguments)


def _serve(jobs: queue.SimpleQueue) -> None:
    """Work until there is a None. Whatever an expert raises, SystemExit included, is an answer."""
    try:
        while (job := jobs.get()) is not None:
            work, answer = job
            try:
                done = work(), None
            except Stop:
                return
            except BaseException as error:
                done = None, error
            answer.put(done)
            del job, work, answer, done  # keep no result alive while waiting
    except Stop:
        return
