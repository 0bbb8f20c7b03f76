"""The same function over many items in several processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cocoseg.core.errors import UserError
from cocoseg.core.parallel import in_processes
from tests import ROOT, wait_until


def square(number: int) -> int:
    return number * number


def process_of(number: int) -> int:
    return os.getpid()


def meet_another(directory: Path) -> int:
    """Be noted in a folder, and wait there for another process."""
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
def test_results_come_in_the_order_of_the_items(workers: int, count: int) -> None:
    results = in_processes(square, range(count), workers, chunk=3)
    assert list(results) == [number * number for number in range(count)]


def test_two_workers_are_two_processes_and_one_is_this_process(tmp_path: Path) -> None:
    assert set(in_processes(process_of, range(3), 1)) == {os.getpid()}
    processes = set(in_processes(meet_another, [tmp_path] * 2, 2, chunk=1))
    assert len(processes) == 2
    assert os.getpid() not in processes


@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_function_raises_is_raised_to_the_caller(workers: int) -> None:
    with pytest.raises(ValueError, match="five"):
        list(in_processes(fail_at_five, range(10), workers, chunk=1))


def test_a_killed_worker_is_one_line_for_the_user() -> None:
    with pytest.raises(UserError, match=r"runtime\.workers"):
        list(in_processes(die_at_five, range(10), 2, chunk=1))


def test_items_are_taken_only_as_results_are_used() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    results = in_processes(square, items(), 2, chunk=5)
    next(results)
    assert taken <= 5 * (2 * 2 + 1)
    results.close()  # type: ignore[attr-defined]


STAGE = """
import sys
from pathlib import Path
from cocoseg.core.parallel import in_processes
from tests import wait_until
from tests.common.test_parallel import meet_another
folder = Path(sys.argv[1])

def work(item):
    meet_another(folder / "workers")
    if item == 2:
        wait_until((folder / "go on").exists)

for item, _ in enumerate(in_processes(work, range(3), 2, chunk=1)):
    if item == 1:
        (folder / "only the last is left").touch()
"""


def start_stage(directory: Path) -> tuple["subprocess.Popen[str]", list[int]]:
    """A process in a group of its own, and its two workers: one is at the last item until there is
    a file `go on`, the other waits for more."""
    (directory / "workers").mkdir()
    stage = subprocess.Popen(
        [sys.executable, "-c", STAGE, directory],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
    )
    wait_until((directory / "only the last is left").exists)
    return stage, [int(path.name) for path in (directory / "workers").iterdir()]


def wait_for_the_end_of(processes: list[int]) -> None:
    wait_until(lambda: not any(is_running(process) for process in processes))


def is_running(process: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True
    )
    return state.stdout.strip()[:1] not in ("", "Z")


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    stage, workers = start_stage(tmp_path)
    stage.kill()
    wait_for_the_end_of(workers)
    stage.communicate()


def test_workers_are_silent_when_ctrl_c_reaches_the_whole_group(tmp_path: Path) -> None:
    stage, workers = start_stage(tmp_path)
    os.killpg(stage.pid, signal.SIGINT)
    (tmp_path / "go on").touch()
    _, errors = stage.communicate()
    wait_for_the_end_of(workers)
    # The one traceback is the parent's own, which run_stage would catch.
    assert errors.count("KeyboardInterrupt") == 1
    assert "Process-" not in errors
