"""Choosing a device; reserving one among several processes."""

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from cocoseg.core.errors import UserError
from cocoseg.models import devices
from cocoseg.models.devices import (
    enough_memory,
    find_device,
    set_up_device,
    take_cores,
    take_device,
)
from tests import ROOT

FORK = multiprocessing.get_context("fork")
"""Forked processes start quickly, because they do not import PyTorch."""


def take_gpu(locks: Path) -> int:
    return take_device(["GPU-a", "GPU-b"], locks)


def take_two_cores(locks: Path) -> None:
    take_cores(2, locks)


def take(reserve: Callable[[Path], object], locks: Path, pipe: Connection) -> None:
    """Reserve something, send the result, hold it until a message arrives, send the log."""
    logged: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("cocoseg")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    pipe.send(reserve(locks))
    pipe.recv()
    pipe.send(logged)


@dataclass
class Taker:
    process: BaseProcess
    pipe: Connection

    def device(self) -> int:
        return int(self.pipe.recv())

    def end(self) -> list[str]:
        """End the process and return its log."""
        self.pipe.send("end")
        logged: list[str] = self.pipe.recv()
        self.process.join()
        return logged


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Taker]]:
    started: list[Taker] = []

    def start(reserve: Callable[[Path], object] = take_gpu) -> Taker:
        ours, theirs = FORK.Pipe()
        process = FORK.Process(target=take, args=(reserve, tmp_path / "devices", theirs))
        process.start()
        theirs.close()  # so that recv() raises EOFError if the process dies
        started.append(Taker(process, ours))
        return started[-1]

    yield start
    for taker in started:
        taker.process.kill()
        taker.process.join()


def test_a_device_is_released_when_its_process_ends_or_is_killed(
    start: Callable[..., Taker],
) -> None:
    by_device = {taker.device(): taker for taker in (start(), start())}
    first, second = by_device[0], by_device[1]
    sharing = start()
    assert sharing.device() == 0

    second.process.kill()
    second.process.join()
    third = start()
    assert third.device() == 1

    # Device 0 has one process left, device 1 none.
    first.end()
    third.end()
    assert start().device() == 1

    assert sharing.end() == ["all 2 GPUs are in use: sharing GPU 0 with 1 other processes"]


@pytest.mark.parametrize(
    ("cores", "policy", "warned"),
    [(2, "", True), (3, "", True), (4, "", False), (2, "passive", False)],
)
def test_a_training_warns_of_others_on_too_few_cores(
    start: Callable[..., Taker],
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    policy: str,
    warned: bool,
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    first, second = start(take_two_cores), start(take_two_cores)
    first.pipe.recv()
    second.pipe.recv()
    logged = first.end() + second.end()
    assert len(logged) == warned
    assert all(f"sharing {cores} CPU cores with 1 other trainings" in line for line in logged)

    alone = start(take_two_cores)
    alone.pipe.recv()
    assert alone.end() == []


def test_reservations_apply_to_one_lock_directory(
    start: Callable[..., Taker], tmp_path: Path
) -> None:
    assert start().device() == 0
    (tmp_path / "devices").rename(tmp_path / "elsewhere")
    assert start().device() == 0


def test_an_unavailable_device_is_a_one_line_error() -> None:
    with pytest.raises(UserError, match=r"^runtime\.device .*: cuda:99 is not [^\n]*$"):
        find_device("cuda:99")


@pytest.mark.parametrize(
    ("name", "cuda", "mps", "expected"),
    [
        ("auto", True, True, "cuda:3"),
        ("auto", False, True, "mps"),
        ("auto", False, False, "cpu"),
        ("cpu", True, True, "cpu"),
        ("cuda", True, False, "cuda:3"),
        ("cuda:1", True, False, "cuda:1"),
    ],
)
def test_auto_prefers_a_gpu_and_cuda_is_the_gpu_of_the_process(
    monkeypatch: pytest.MonkeyPatch, name: str, cuda: bool, mps: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert find_device(name) == torch.device(expected)


def test_a_stage_on_a_gpu_reserves_it_and_computes_deterministically(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", calls.append)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    monkeypatch.setattr(devices, "_gpus", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert set_up_device("auto", tmp_path) == torch.device("cuda:0")
    assert calls == [True, torch.device("cuda:0")]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert [path.stem for path in tmp_path.glob("GPU-*")] == ["GPU-a"]


def test_a_stage_on_the_cpu_changes_nothing(tmp_path: Path) -> None:
    assert set_up_device("cpu", tmp_path).type == "cpu"
    assert not list(tmp_path.iterdir())
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_training_on_the_cpu_reserves_its_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    set_up_device("cpu", tmp_path, threads=4)
    assert not list(tmp_path.iterdir())  # process 0 reserves those of all
    monkeypatch.setenv("LOCAL_RANK", "0")
    set_up_device("cpu", tmp_path, threads=4)
    assert len(list(tmp_path.glob("cpu.4.*"))) == 1


def test_only_stages_set_up_a_device_for_the_process() -> None:
    library = (ROOT / "cocoseg").rglob("*.py")
    users = [path.name for path in library if "set_up_device" in path.read_text(encoding="utf-8")]
    assert users == ["devices.py"]


def test_too_little_gpu_memory_is_a_one_line_error() -> None:
    with (
        pytest.raises(UserError, match=r"^out of GPU memory: lower train\.crop$"),
        enough_memory("lower train.crop"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB.")
