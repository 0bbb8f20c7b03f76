"""Which device computes."""

import fcntl
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
    """The device of a name: `auto`, `cpu`, `mps`, `cuda` or `cuda:N`.

    `auto` prefers a GPU. Under torchrun, `cuda` is the GPU of this process.

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
            f"runtime.device (or --device): {name} is not available here; auto finds one, and each "
            "of train.processes needs its own"
        ) from None
    return device


def set_up_device(name: str, locks: Path) -> torch.device:
    """The device for this process, which from now on computes the same result every time.

    For stages: sets PyTorch's deterministic mode and, on GPUs, the current device. With `auto` and
    several GPUs, takes one that no other process has taken, by a file in the directory `locks`.

    Raises:
        UserError: the device is not available.
    """
    if name == "auto" and torch.cuda.is_available() and "LOCAL_RANK" not in os.environ:
        name = f"cuda:{take_device(_gpus(), locks)}"
    device = find_device(name)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it for that
        torch.use_deterministic_algorithms(True)
        torch.cuda.set_device(device)  # for NCCL, and for tensors that name no GPU
    return device


@contextmanager
def enough_memory(remedy: str) -> Iterator[None]:
    """Raise UserError, with what to do, where a GPU's memory is too small for the block."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise UserError(f"the GPU's memory is too small: {remedy}") from None


def _gpus() -> list[str]:
    """What tells each GPU from all others; its number depends on CUDA_VISIBLE_DEVICES."""
    numbers = range(torch.cuda.device_count())
    return [str(torch.cuda.get_device_properties(number).uuid) for number in numbers]


def take_device(names: Sequence[str], locks: Path) -> int:
    """The number of a device that no other process has taken; this one keeps it until it ends.

    Each taker holds the lock of a file of its own in the folder `locks`, which the system opens
    again however the process ends. Where all devices are taken, that of the fewest takers is
    shared, the first of several such.
    """
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / "choice.lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        takers = [sum(map(_is_held, locks.glob(f"{name}.*"))) for name in names]
        number = takers.index(min(takers))
        lock, _ = tempfile.mkstemp(prefix=f"{names[number]}.", dir=locks)  # stays open
        fcntl.flock(lock, fcntl.LOCK_EX)
    if takers[number]:
        logger.info(
            "all %d GPUs are taken: number %d is shared with %d other processes",
            *(len(names), number, takers[number]),
        )
    return number


def _is_held(path: Path) -> bool:
    """Whether the process that has locked a file lives; if not, the file is removed."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    path.unlink()
    return False
