"""Choosing the device that computes."""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from cocoseg.core.errors import UserError

logger = logging.getLogger(__name__)


def find_device(name: str) -> torch.device:
    """Find a device by name, without changing any state of the process.

    Args:
        name: `auto`, `cpu`, `mps`, `cuda` or `cuda:N`. `auto` prefers a GPU. Under torchrun, `cuda`
            is the GPU of this process.

    Raises:
        UserError: the device is not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    device = torch.device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(
            f"runtime.device (or --device): {name} is not available on this machine; use auto or "
            "cpu (with train.processes above 1, each process requires its own GPU)"
        ) from None
    return device


def set_up_device(name: str, locks: Path, threads: int = 0) -> torch.device:
    """Find the device of a stage and make its results reproducible.

    On GPUs, this enables PyTorch's deterministic algorithms and sets the current device for the
    whole process.

    Args:
        name: as in `find_device`. With `auto` and several GPUs, the process reserves the one that
            the fewest other processes use.
        locks: the directory of the lock files by which processes reserve GPUs and CPU cores.
        threads: the number of CPU threads of a long computation, over all its processes. If it
            runs on the CPU, the process reserves as many cores; see `take_cores`.

    Raises:
        UserError: the device is not available.
    """
    if name == "auto" and torch.cuda.is_available() and "LOCAL_RANK" not in os.environ:
        name = f"cuda:{take_device(_gpus(), locks)}"
    device = find_device(name)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS
        torch.use_deterministic_algorithms(True)
        torch.cuda.set_device(device)  # for NCCL, and for tensors that name no GPU
    if device.type == "cpu" and threads and os.environ.get("LOCAL_RANK", "0") == "0":
        take_cores(threads, locks)
    return device


@contextmanager
def enough_memory(remedy: str) -> Iterator[None]:
    """Raise UserError with the `remedy` if the block runs out of GPU memory."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise UserError(f"out of GPU memory: {remedy}") from None


def _gpus() -> list[str]:
    """The UUIDs of the visible GPUs. (Their numbers depend on CUDA_VISIBLE_DEVICES.)"""
    numbers = range(torch.cuda.device_count())
    return [str(torch.cuda.get_device_properties(number).uuid) for number in numbers]


def take_device(names: Sequence[str], locks: Path) -> int:
    """Reserve a device until this process ends.

    Each process locks one file per reservation. The operating system releases the lock when the
    process ends, even if it crashes.

    Args:
        names: a unique name for each device.
        locks: the directory of the lock files; created if missing.

    Returns:
        The index in `names` of the device with the fewest reservations, the first of equals.
    """
    with _one_at_a_time(locks):
        takers = [len(_held(name, locks)) for name in names]
        number = takers.index(min(takers))
        _hold(names[number], locks)
    if takers[number]:
        logger.info(
            "all %d GPUs are in use: sharing GPU %d with %d other processes",
            *(len(names), number, takers[number]),
        )
    return number


def take_cores(threads: int, locks: Path) -> None:
    """Reserve CPU cores until this process ends; log a warning if there are too few.

    Args:
        threads: the number of threads of this process.
        locks: the directory of the lock files; created if missing.
    """
    with _one_at_a_time(locks):
        others = [int(path.name.split(".")[1]) for path in _held("cpu", locks)]
        _hold(f"cpu.{threads}", locks)
    cores = os.cpu_count() or 1
    # By default, threads that wait occupy a core.
    passive = os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
    if others and threads + sum(others) > cores and not passive:
        logger.warning(
            "sharing %d CPU cores with %d other trainings is slower than one after the other: "
            "use `dvc queue start --jobs 1`, or set OMP_WAIT_POLICY=PASSIVE before you start them",
            *(cores, len(others)),
        )


@contextmanager
def _one_at_a_time(locks: Path) -> Iterator[None]:
    """Exclude other processes that reserve something."""
    import fcntl  # not on Windows, where `find_device` works all the same

    locks.mkdir(parents=True, exist_ok=True)
    with (locks / "choice.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _hold(name: str, locks: Path) -> None:
    """Lock a new file `NAME.*` until this process ends."""
    import fcntl

    lock, _ = tempfile.mkstemp(prefix=f"{name}.", dir=locks)  # stays open
    fcntl.flock(lock, fcntl.LOCK_EX)


def _held(name: str, locks: Path) -> list[Path]:
    """The files `NAME.*` that running processes lock; others are removed."""
    return [path for path in locks.glob(f"{name}.*") if _is_held(path)]


def _is_held(path: Path) -> bool:
    """Whether a running process holds the lock of a file; if none does, remove the file."""
    import fcntl

    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    path.unlink()
    return False
