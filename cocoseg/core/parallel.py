"""A function applied to many items in several processes or threads."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

import psutil

from cocoseg.core.errors import UserError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def in_processes(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], workers: int, chunk: int = 16
) -> Iterator[ResultT]:
    """Apply `function` to each item in worker processes.

    At most 2 `workers` + 1 chunks are in flight, so that neither items nor results accumulate in
    memory.

    Args:
        function: a picklable function of one item.
        items: read lazily.
        workers: how many processes; 0 and 1 mean the current process.
        chunk: how many items a process gets at a time.

    Yields:
        The result of each item, in the order of the items.

    Raises:
        UserError: the system killed a worker.
        Exception: any exception that `function` raises.
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
            "the system killed a worker process, probably because memory ran out; "
            "lower runtime.workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def in_threads(
    function: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    threads: int,
    *,
    size: Callable[[ItemT], int],
    max_size: int,
) -> Iterator[ResultT]:
    """Apply `function` to each item in threads, while the caller uses earlier results.

    Args:
        function: a function of one item that mostly runs without Python's global lock, such as
            decoding an image or writing a file.
        items: read lazily, in the thread of the caller.
        threads: the number of threads, or 0 for the thread of the caller. At most twice as many
            items are in flight.
        size: the size of an item in any unit.
        max_size: the maximum size of all items in flight. A larger item is processed alone.

    Yields:
        The result of each item, in the order of the items.

    Raises:
        Exception: any exception that `function` raises.
    """
    if not threads:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[Future[ResultT], int]] = deque()
    try:
        for item in items:
            item_size = size(item)  # before the thread uses the item
            waiting.append((pool.submit(function, item), item_size))
            while len(waiting) > 2 * threads or sum(size for _, size in waiting) > max_size:
                yield waiting.popleft()[0].result()
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)


def _map(function: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> list[ResultT]:
    return [function(item) for item in items]


def _prepare_worker() -> None:
    """Leave the reaction to Ctrl-C and SIGTERM, which reach the whole group, to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    exit_with_parent()


def exit_with_parent() -> None:
    """End this process as soon as its parent has ended.

    Otherwise the workers of a killed process wait for work, or write files, forever. If the parent
    is the shell that a program started to run a command, that program counts as the parent.
    """
    forked = multiprocessing.parent_process()
    parent = None if forked else _parent()
    threading.Thread(target=_exit_after, args=(forked, parent), daemon=True).start()


def _parent() -> psutil.Process | None:
    parent = psutil.Process().parent()
    # Unlike bash and zsh, these wait for their last command instead of becoming it.
    return parent.parent() if parent and parent.name() in {"sh", "dash", "fish"} else parent


def _exit_after(forked: BaseProcess | None, parent: psutil.Process | None) -> None:
    if forked:
        wait([forked.sentinel])
    else:
        with contextlib.suppress(psutil.NoSuchProcess):
            while parent and parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.2)
    os._exit(1)
