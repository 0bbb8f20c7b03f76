"""The same function over many items, on several cores."""

import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from cocoseg.core.errors import UserError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def in_processes(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], workers: int, chunk: int = 16
) -> Iterator[ResultT]:
    """Yield `function(item)` for each item, in order, computed by `workers` processes.

    Up to one worker means this process. Only a few chunks are under way at a time, so that neither
    the items nor the results pile up in memory. What `function` raises is raised here; UserError is
    raised when the system kills a worker.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    iterator = iter(items)
    chunks = iter(lambda: list(itertools.islice(iterator, chunk)), [])
    pool = ProcessPoolExecutor(workers, initializer=_prepare_worker)
    try:
        waiting = deque(
            pool.submit(_map, function, part) for part in itertools.islice(chunks, 2 * workers)
        )
        while waiting:
            results = waiting.popleft().result()
            for part in itertools.islice(chunks, 1):
                waiting.append(pool.submit(_map, function, part))
            yield from results
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, most likely for want of memory: lower runtime.workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _map(function: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> list[ResultT]:
    return [function(item) for item in items]


def _prepare_worker() -> None:
    """Ctrl-C and SIGTERM reach the whole group of processes: the parent decides what they mean."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    exit_with_parent()


def exit_with_parent() -> None:
    """From now on, end this process when its parent is gone.

    The workers of a killed process would otherwise wait for work, or write files, forever.
    """
    threading.Thread(target=_exit_after_parent, args=(os.getppid(),), daemon=True).start()


def _exit_after_parent(parent_id: int) -> None:
    if parent := multiprocessing.parent_process():
        wait([parent.sentinel])
    else:
        while os.getppid() == parent_id:
            time.sleep(0.2)
    os._exit(1)
