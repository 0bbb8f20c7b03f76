"""Which device computes."""

import torch

from cocoseg.errors import UserError


def choose_device(name: str) -> torch.device:
    """`auto` takes a GPU where there is one. Raises UserError for a device that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"runtime.device: {name} is not available here; auto finds one") from None
    return device
