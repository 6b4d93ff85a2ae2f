"""Runs a check over many records in worker processes: results in order, few in memory at a time, a crash is a finding.

A decoder that takes its process down (a damaged video can) spoils one record of the report, not the report. When a
process ends, nobody knows which record it was: the chunks that were under way are then looked at one at a time.
"""

import gc
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
            return
        except BrokenProcessPool:
            pass
        for chunk in chunks[done : done + workers * WAITING]:
            results, culprits = _alone(check, chunk, crashed)
            yield from zip(chunk, results)
            done += 1
            if culprits:  # many bad records in a row cost a fork each, one costs a few
                break


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


def _alone(check: Callable[[int], Any], chunk: range, crashed: Callable[[int], Any]) -> tuple[list[Any], int]:
    """The results of a chunk in a process of its own, halved as long as it ends; and how many records end theirs."""
    pool = _pool(check, 1)
    try:
        return pool.submit(_run, chunk).result(), 0
    except BrokenProcessPool:
        if len(chunk) == 1:
            return [crashed(chunk[0])], 1
    finally:
        pool.shutdown(wait=False)
    halves = [_alone(check, half, crashed) for half in (chunk[: len(chunk) // 2], chunk[len(chunk) // 2 :])]
    return halves[0][0] + halves[1][0], halves[0][1] + halves[1][1]


def _pool(check: Callable[[int], Any], workers: int) -> ProcessPoolExecutor:
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(method)
    gc.collect()  # a decoder of a video that waits for its threads can be let go of here, never in a forked process
    return ProcessPoolExecutor(workers, context, initializer=_start, initargs=(check,))


def _start(check: Callable[[int], Any]) -> None:
    global _check
    gc.freeze()  # what came with the fork is the parent's to collect
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends its workers
    _check = check


def _run(indices: range) -> list[Any]:
    return [_check(index) for index in indices]
