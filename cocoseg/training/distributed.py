"""Training in several processes (torchrun, DDP). In a single process these functions do nothing.

python -m cocoseg.training.distributed   runs torchrun without its report of failed processes
"""

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from cocoseg.core.parallel import exit_with_parent

T = TypeVar("T")


def started_by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "LOCAL_RANK" in os.environ


def relaunch(module: str, processes: int) -> NoReturn:
    """Replace this process with torchrun, which runs `python -m module` in several processes."""
    launcher = ["-m", __name__, "--standalone", f"--nproc-per-node={processes}"]
    os.execv(sys.executable, [sys.executable, *launcher, "-m", module])


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the process group of torchrun: NCCL on GPUs, gloo on CPUs."""
    if not started_by_torchrun():
        yield
        return
    exit_with_parent()  # a killed torchrun does not stop its processes
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if dist.get_rank():
        logging.getLogger("cocoseg").setLevel(logging.WARNING)  # process 0 logs progress
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process; process 0 writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def process_count() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def broadcast_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors with the tensors of process 0."""
    if process_count() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def from_first(value: T, device: torch.device) -> T:
    """Return the value of process 0 in all processes; `device` is the device of this process."""
    if process_count() == 1:
        return value
    shared = [value]
    dist.broadcast_object_list(shared, 0, device=device)
    return shared[0]


def global_sum(local: Tensor) -> Tensor:
    """Sum a tensor over all processes; the gradient flows to the tensor of this process only.

    DDP averages gradients: multiply the loss by `process_count()` before `backward`.
    """
    if process_count() == 1:
        return local
    total = local.detach().clone()
    dist.all_reduce(total)
    return local + (total - local.detach())


def main() -> None:
    """Run torchrun. Failed processes print their own errors; report only a killed process."""
    logging.disable(logging.ERROR)
    if "DVC_STAGE" in os.environ:
        exit_with_parent()  # as stages do; the training processes end with this one
    try:
        torchrun.main()
    except ChildFailedError as error:
        process, failure = error.get_first_failure()
        if failure.exitcode < 0:
            sys.exit(
                f"error: training process {process} was killed by {failure.signal_name()}, possibly"
                " out of memory: lower train.batch_size, train.processes or runtime.workers"
            )
        sys.exit(1)


if __name__ == "__main__":
    main()
