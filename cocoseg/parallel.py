"""The same function over many items, on several cores."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, chunk: int = 16
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, computed by `workers` processes.

    Up to one worker means this process. Only a few chunks are under way at a time, so that neither
    the items nor the results pile up in memory.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    iterator = iter(items)
    chunks = iter(lambda: list(itertools.islice(iterator, chunk)), [])
    with ProcessPoolExecutor(workers) as pool:
        waiting = deque(
            pool.submit(_map, function, part) for part in itertools.islice(chunks, 2 * workers)
        )
        while waiting:
            results = waiting.popleft().result()
            for part in itertools.islice(chunks, 1):
                waiting.append(pool.submit(_map, function, part))
            yield from results


def _map(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    return [function(item) for item in items]
