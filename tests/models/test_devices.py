"""Processes that start at the same time take different devices, and give them back by ending."""

import logging
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from cocoseg.core.errors import UserError
from cocoseg.models.devices import choose_device, enough_memory, take_device

FORK = multiprocessing.get_context("fork")
"""As many processes as a test likes, of which none has to import PyTorch."""


def take(locks: Path, pipe: Connection) -> None:
    """Take one of two pretended devices, tell which, keep it until told to end, tell what was
    logged."""
    logged: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("cocoseg")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    pipe.send(take_device(["GPU-a", "GPU-b"], locks))
    pipe.recv()
    pipe.send(logged)


@dataclass
class Taker:
    process: BaseProcess
    pipe: Connection

    def device(self) -> int:
        return int(self.pipe.recv())

    def end(self) -> list[str]:
        """What it has logged."""
        self.pipe.send("end")
        logged: list[str] = self.pipe.recv()
        self.process.join()
        return logged


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Taker]]:
    started: list[Taker] = []

    def start() -> Taker:
        ours, theirs = FORK.Pipe()
        process = FORK.Process(target=take, args=(tmp_path / "devices", theirs))
        process.start()
        started.append(Taker(process, ours))
        return started[-1]

    yield start
    for taker in started:
        taker.process.kill()
        taker.process.join()


def test_a_device_is_free_again_however_its_process_ends(start: Callable[[], Taker]) -> None:
    at_once = {taker.device(): taker for taker in (start(), start())}
    first, second = at_once[0], at_once[1]
    sharing = start()
    assert sharing.device() == 0

    second.process.kill()
    second.process.join()
    third = start()
    assert third.device() == 1

    # Of the first device's two takers one ends; the fewest takers count, not who came first.
    first.end()
    third.end()
    assert start().device() == 1

    assert sharing.end() == ["all 2 GPUs are taken: number 0 is shared with 1 other processes"]


def test_other_folders_know_nothing_of_each_other(
    start: Callable[[], Taker], tmp_path: Path
) -> None:
    assert start().device() == 0
    (tmp_path / "devices").rename(tmp_path / "elsewhere")
    assert start().device() == 0


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cuda:99 is not available here; auto finds one"):
        choose_device("cuda:99", tmp_path)
    assert choose_device("cpu", tmp_path).type == "cpu"
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_one_line() -> None:
    with (
        pytest.raises(UserError, match=r"^the GPU's memory is too small: lower train\.crop$"),
        enough_memory("lower train.crop"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB.")
