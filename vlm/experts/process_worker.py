"""Runs one expert in a process of its own, which a time-out kills whatever it is doing, its children included.

It costs the start of a Python process (with torch some seconds) at the first call and after each kill, and a copy of
each result through a pipe. The process is waited for, so that nothing is left of it. When the session's own process is
killed, its input closes and it ends by itself, after the call that it is in.
"""

import functools
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from vlm.experts.protocol import Expert, ExpertResult
from vlm.experts.trigger import ExpertError
from vlm.experts.worker import LOAD_SECONDS, ExpertTimeoutError, RaisedError, run

CHILD = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from vlm.experts.process_worker import serve; serve()"
)


class ProcessWorker:
    """One expert in a child process. `source`: the expert's class, importable by its name, a picklable instance, or a
    partial that makes one, the class its first argument.

    Raises `ExpertError` for a source that another process cannot have.
    """

    def __init__(self, name: str, source: type[Expert] | Expert | functools.partial) -> None:
        self.name = name
        self.run_seconds = 0.0  # of the last call, measured where it ran
        makes = isinstance(source, functools.partial)
        cls = source.args[0] if makes else source if isinstance(source, type) else type(source)
        if cls.__module__ == "__main__":
            raise ExpertError(f"{name} cannot run in a process of its own: its class must stand in a module")
        try:
            self._source = pickle.dumps(source)
        except Exception as error:
            raise ExpertError(f"{name} cannot run in a process of its own: {type(error).__name__}") from error
        self._process: subprocess.Popen | None = None
        self._answers: queue.SimpleQueue = queue.SimpleQueue()

    def call(self, path: Path, arguments: tuple[str, ...], seconds: float) -> ExpertResult:
        """As `ThreadWorker.call`; what the expert raises comes as `ExpertError` or `RaisedError`."""
        if self._process is None or self._process.poll() is not None:
            self._start()
            self._ask(("load", self._source), max(seconds, LOAD_SECONDS))
        result, self.run_seconds = self._ask(("run", (Path(path).absolute(), arguments)), seconds)
        return result

    def _start(self) -> None:
        self.close()
        self._answers = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._finalizer = weakref.finalize(self, kill, self._process)  # at exit, if nobody closes the session
        threading.Thread(target=_receive, args=(self._process.stdout, self._answers), daemon=True).start()
        self._send([str(Path.cwd()) if entry == "" else entry for entry in sys.path])

    def _send(self, value: Any) -> None:
        try:
            pickle.dump(value, self._process.stdin)
            self._process.stdin.flush()
        except OSError as error:
            self.close()
            raise ExpertError(f"{self.name} ended unexpectedly") from error

    def _ask(self, message: tuple[str, Any], seconds: float) -> Any:
        self._send(message)
        try:
            kind, value = self._answers.get(timeout=seconds)
        except queue.Empty:
            self.close()
            raise ExpertTimeoutError(f"{self.name} did not answer within {seconds:g} s") from None
        except BaseException:  # Ctrl-C while waiting
            self.close()
            raise
        if kind == "ended":
            self.close()
            raise ExpertError(f"{self.name} ended unexpectedly")
        if kind == "refused":
            raise ExpertError(value)
        if kind == "failed":
            raise RaisedError(*value)
        return value

    def close(self) -> None:
        """End the process, whatever it is doing, and wait for it."""
        if self._process is not None:
            self._finalizer()
            self._process = None


def kill(process: subprocess.Popen) -> None:
    """End a child, and the children that it started, and take its status so that no zombie stays."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)  # also after the child itself ended: its group may live on
        except (ProcessLookupError, PermissionError):
            pass
    else:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        try:
            pipe.close()
        except OSError:  # what was still in the buffer has no reader
            pass


def _receive(pipe: Any, answers: queue.SimpleQueue) -> None:
    """Put every answer of a child into `answers`, then ("ended", None)."""
    try:
        while True:
            answers.put(pickle.load(pipe))
    except Exception:  # the pipe was closed, or was cut in the middle of an answer
        answers.put(("ended", None))


def serve() -> None:
    """The child's side: load the expert, run calls, until the input ends. What experts print goes to stderr."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    expert = None
    while True:
        try:
            what, value = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            if what == "load":
                source = pickle.loads(value)
                expert = source() if isinstance(source, type | functools.partial) else source
                answer = pickle.dumps(("done", None))
            else:
                start = time.perf_counter()
                result = run(expert, *value)
                answer = pickle.dumps(("done", (result, time.perf_counter() - start)))
        except ExpertError as error:
            answer = pickle.dumps(("refused", str(error)))
        except BaseException as error:
            answer = pickle.dumps(("failed", (type(error).__name__, str(error))))
        out.write(answer)
        out.flush()
