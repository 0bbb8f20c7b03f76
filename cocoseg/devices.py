"""Which device computes."""

import os

import torch

from cocoseg.errors import UserError


def choose_device(name: str) -> torch.device:
    """`auto` takes a GPU where there is one; under torchrun, each process takes its own.

    Raises UserError for a device that is not there.
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
        raise UserError(f"runtime.device: {name} is not available here; auto finds one") from None
    return device
