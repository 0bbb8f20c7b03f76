"""Which device computes."""

import os

import torch

from cocoseg.common.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device that a name stands for, set up so that it computes the same thing twice.

    `auto` takes a GPU where there is one; under torchrun, each process takes its own.

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
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS wants for it
        torch.use_deterministic_algorithms(True)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(
            f"runtime.device (or --device): {name} is not available here; auto finds one"
        ) from None
    return device
