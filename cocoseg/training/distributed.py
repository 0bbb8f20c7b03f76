"""What training in several processes (torchrun, DDP) needs; does nothing in a single one.

python -m cocoseg.training.distributed   is torchrun, but quiet about a process that has failed
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
    """Whether this process is one of several that torchrun started."""
    return "LOCAL_RANK" in os.environ


def relaunch(module: str, processes: int) -> NoReturn:
    """Replace this process by torchrun, which runs `python -m module` in `processes` processes."""
    launcher = ["-m", __name__, "--standalone", f"--nproc-per-node={processes}"]
    os.execv(sys.executable, [sys.executable, *launcher, "-m", module])


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Work together with the processes that torchrun started: by NCCL on GPUs, else by gloo."""
    if not started_by_torchrun():
        yield
        return
    exit_with_parent()  # torchrun, when killed, leaves its processes behind
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if dist.get_rank():
        logging.getLogger("cocoseg").setLevel(logging.WARNING)  # process 0 tells how it goes
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def process_count() -> int:
    """How many processes share the work."""
    return dist.get_world_size() if dist.is_initialized() else 1


def broadcast_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors by those of process 0."""
    if process_count() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def from_first(value: T, device: torch.device) -> T:
    """Process 0's value in all processes; `device` is where this one computes."""
    if process_count() == 1:
        return value
    shared = [value]
    dist.broadcast_object_list(shared, 0, device=device)
    return shared[0]


def global_sum(local: Tensor) -> Tensor:
    """The sum over all processes; its gradient is that of this process's share.

    DDP averages the gradients: multiply the loss by `process_count()` before `backward`.
    """
    if process_count() == 1:
        return local
    total = local.detach().clone()
    dist.all_reduce(total)
    return local + (total - local.detach())


def main() -> None:
    """Run torchrun, but leave it to a process that fails to say why; one that is killed cannot."""
    logging.disable(logging.ERROR)
    try:
        torchrun.main()
    except ChildFailedError as error:
        process, failure = error.get_first_failure()
        if failure.exitcode < 0:
            sys.exit(
                f"error: training process {process} was ended by {failure.signal_name()}, perhaps "
                "for want of memory: lower train.batch_size, train.processes or runtime.workers"
            )
        sys.exit(1)


if __name__ == "__main__":
    main()
