"""Runs a check over many records in worker processes: results in order, few in memory at a time, a crash is a finding.

A decoder that takes its process down (a damaged video can) spoils one record of the report, not the report.
"""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

CHUNK = 16  # records a worker hands back at once
WAITING = 8  # chunks a worker that may be finished and not yet taken

_check: Callable[[int], Any] | None = None  # of a worker process


def run_over(
    check: Callable[[int], Any], size: int, workers: int, crashed: Callable[[int], Any]
) -> Iterator[tuple[int, Any]]:
    """(index, check(index)) for 0 ... size - 1, in order.

    Args:
        workers: Processes beside this one; 0: in this one.
        crashed: What to give for a record whose check ends its process.
    """
    if workers == 0:
        yield from ((index, check(index)) for index in range(size))
        return
    chunks = [range(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK)]
    done = 0
    while done < len(chunks):
        try:
            for results in _in_order(check, chunks[done:], workers):
                yield from zip(chunks[done], results)
                done += 1
        except BrokenProcessPool:  # nobody knows which record it was: look at this chunk's one by one
            yield from ((index, _alone(check, index, crashed)) for index in chunks[done])
            done += 1


def _in_order(check: Callable[[int], Any], chunks: list[range], workers: int) -> Iterator[list[Any]]:
    pool, waiting = _pool(check, workers), deque()
    rest = iter(chunks)
    try:
        while True:
            while len(waiting) < workers * WAITING and (chunk := next(rest, None)) is not None:
                waiting.append(pool.submit(_run, chunk))
            if not waiting:
                return
            future: Future = waiting.popleft()
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _alone(check: Callable[[int], Any], index: int, crashed: Callable[[int], Any]) -> Any:
    pool = _pool(check, 1)
    try:
        return pool.submit(_run, range(index, index + 1)).result()[0]
    except BrokenProcessPool:
        return crashed(index)
    finally:
        pool.shutdown(wait=False)


def _pool(check: Callable[[int], Any], workers: int) -> ProcessPoolExecutor:
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(method)
    return ProcessPoolExecutor(workers, context, initializer=_start, initargs=(check,))


def _start(check: Callable[[int], Any]) -> None:
    global _check
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends its workers
    _check = check


def _run(indices: range) -> list[Any]:
    return [_check(index) for index in indices]
