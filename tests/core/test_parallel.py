"""A function applied to many items in several processes or threads."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cocoseg.core.errors import UserError
from cocoseg.core.parallel import in_processes, in_threads
from tests import LIMIT_S, ROOT, wait_until


def square(number: int) -> int:
    return number * number


def process_of(number: int) -> int:
    return os.getpid()


def meet_another(directory: Path) -> int:
    """Register in a directory and wait for another process to do the same."""
    (directory / str(os.getpid())).touch()
    wait_until(lambda: len(list(directory.iterdir())) > 1)
    return os.getpid()


def fail_at_five(number: int) -> int:
    if number == 5:
        raise ValueError("five")
    return number


def die_at_five(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_results_are_in_the_order_of_the_items(workers: int, count: int) -> None:
    results = in_processes(square, range(count), workers, chunk=3)
    assert list(results) == [number * number for number in range(count)]


def test_two_workers_are_two_processes_and_one_is_this_process(tmp_path: Path) -> None:
    assert set(in_processes(process_of, range(3), 1)) == {os.getpid()}
    processes = set(in_processes(meet_another, [tmp_path] * 2, 2, chunk=1))
    assert len(processes) == 2
    assert os.getpid() not in processes


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_of_the_function_reaches_the_caller(workers: int) -> None:
    with pytest.raises(ValueError, match="five"):
        list(in_processes(fail_at_five, range(10), workers, chunk=1))


def test_a_killed_worker_is_an_error_for_the_user() -> None:
    with pytest.raises(UserError, match=r"killed a worker process.*lower runtime\.workers"):
        list(in_processes(die_at_five, range(10), 2, chunk=1))


@pytest.mark.parametrize(("workers", "at_most"), [(1, 1), (2, 5 * (2 * 2 + 1))])
def test_items_are_read_only_as_results_are_used(workers: int, at_most: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    results = in_processes(square, items(), workers, chunk=5)
    next(results)
    assert 1 <= taken <= at_most
    results.close()  # type: ignore[attr-defined]


def one(item: object) -> int:
    return 1


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_of_threads_are_in_the_order_of_the_items(threads: int) -> None:
    first_may_end = threading.Event()

    def square_and_delay_the_first(number: int) -> int:
        if number == 0 and threads > 1:
            assert first_may_end.wait(LIMIT_S)
        if number == 2:
            first_may_end.set()
        return number * number

    results = in_threads(square_and_delay_the_first, range(20), threads, size=one, max_size=100)
    assert list(results) == [number * number for number in range(20)]


@pytest.mark.parametrize("threads", [0, 2])
def test_an_exception_in_a_thread_reaches_the_caller(threads: int) -> None:
    with pytest.raises(ValueError, match="five"):
        list(in_threads(fail_at_five, range(10), threads, size=one, max_size=100))


def test_threads_stay_within_the_number_and_the_size_of_items_in_flight() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for size in [1] * 20 + [7, 50, 1, 1]:
            taken.append(size)
            yield size

    results = in_threads(square, items(), 2, size=lambda size: size, max_size=10)
    for used, size in enumerate(results, start=1):
        assert len(taken) - used <= 4
        if size == 50 * 50:
            assert len(taken) == used  # nothing is read beside an item that is too large


STAGE = """
import os, sys
from pathlib import Path
from cocoseg.core.parallel import in_processes
from tests import wait_until
directory = Path(sys.argv[1])

def work(item):
    (directory / "workers" / str(os.getpid())).touch()
    wait_until(lambda: len(list((directory / "workers").iterdir())) == 2)
    if item == 2:
        wait_until((directory / "finish").exists)

for item, _ in enumerate(in_processes(work, range(3), 2, chunk=1)):
    if item == 1:
        (directory / "last item").touch()
"""


def start_stage(directory: Path) -> tuple["subprocess.Popen[str]", list[int]]:
    """A process in its own process group, and the ids of its two workers.

    One worker works on the last item until the file `finish` exists; the other one is idle.
    """
    (directory / "workers").mkdir()
    stage = subprocess.Popen(
        [sys.executable, "-c", STAGE, directory],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
    )
    wait_until((directory / "last item").exists, stage)
    return stage, [int(path.name) for path in (directory / "workers").iterdir()]


def is_running(process: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True
    )
    return state.stdout.strip()[:1] not in ("", "Z")


def wait_for_end(processes: list[int]) -> None:
    wait_until(lambda: not any(is_running(process) for process in processes), limit_s=30)


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    stage, workers = start_stage(tmp_path)
    assert all(is_running(worker) for worker in workers)
    stage.kill()
    wait_for_end(workers)
    stage.communicate(timeout=LIMIT_S)


def test_workers_are_silent_when_ctrl_c_reaches_the_whole_group(tmp_path: Path) -> None:
    stage, workers = start_stage(tmp_path)
    os.killpg(stage.pid, signal.SIGINT)
    (tmp_path / "finish").touch()
    _, errors = stage.communicate(timeout=LIMIT_S)
    wait_for_end(workers)
    # The only traceback is the parent's, which run_stage would catch.
    assert errors.count("KeyboardInterrupt") == 1
    assert "Process-" not in errors
