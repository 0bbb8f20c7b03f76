"""Processes that start at the same time take different devices, and give them back by ending."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cocoseg.common.errors import UserError
from cocoseg.network.devices import choose_device
from tests import ROOT

# Takes one of two pretended devices, says which, and keeps it until its input ends.
SCRIPT = """
import logging, sys
from pathlib import Path
from cocoseg.network.devices import take_device

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
print(take_device(["GPU-a", "GPU-b"], Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""

Taker = subprocess.Popen[str]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Taker]]:
    started: list[Taker] = []

    def start() -> Taker:
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "devices")]
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def device_of(process: Taker) -> int:
    assert process.stdout
    return int(process.stdout.readline())


def test_a_device_is_free_again_however_its_process_ends(start: Callable[[], Taker]) -> None:
    with ThreadPoolExecutor() as threads:
        at_once = list(threads.map(lambda _: start(), range(2)))
    first, second = sorted(at_once, key=device_of)
    sharing = start()
    assert device_of(sharing) == 0

    second.send_signal(signal.SIGKILL)
    second.wait()
    third = start()
    assert device_of(third) == 1

    # Of the first device's two takers one ends; the fewest takers count, not who came first.
    first.communicate()
    third.communicate()
    assert device_of(start()) == 1

    _, said = sharing.communicate()
    assert said == "all 2 GPUs are taken: number 0 is shared with 1 other processes\n"


def test_other_folders_know_nothing_of_each_other(
    start: Callable[[], Taker], tmp_path: Path
) -> None:
    assert device_of(start()) == 0
    (tmp_path / "devices").rename(tmp_path / "elsewhere")
    assert device_of(start()) == 0


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cuda:99 is not available here; auto finds one"):
        choose_device("cuda:99", tmp_path)
    assert choose_device("cpu", tmp_path).type == "cpu"
    assert not list(tmp_path.iterdir())
