"""A training run's state at the end of an epoch, so that an interrupted run can go on.

The file is whole or not there. It belongs to one run only: its fingerprint covers parameters, data
and code.
"""

import hashlib
import logging
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import torch

from cocoseg.common.files import atomic_file

logger = logging.getLogger(__name__)

State = dict[str, Any]
"""Tensors and plain values, nested."""


@dataclass(frozen=True)
class CheckpointFile:
    """Where a run's checkpoint lies, and the fingerprint of the run."""

    path: Path
    fingerprint: str

    def save(self, state: State) -> None:
        """Replace the file.

        torch's own format keeps the tensors' memory layout, on which the last bits of sums depend.
        """
        with atomic_file(self.path) as temporary:
            torch.save({"fingerprint": self.fingerprint, "state": state}, temporary)

    def load(self) -> State | None:
        """The state to go on from, on the CPU, or None where there is none of this very run."""
        if not self.path.is_file():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, UnpicklingError):
            logger.warning("%s is damaged and not used", self.path)
            return None
        if content["fingerprint"] != self.fingerprint:
            logger.info("%s is of another run and not used", self.path)
            return None
        state: State = content["state"]
        return state

    def remove(self) -> None:
        """Remove the file of a run that has ended well."""
        self.path.unlink(missing_ok=True)


def fingerprint(values: Mapping[str, Any], files: Iterable[Path]) -> str:
    """A hash over the values, the contents of the files, the library's loaded code and torch."""
    code = {
        name: module.__file__
        for name, module in sys.modules.items()
        if name.split(".")[0] == "cocoseg" and module.__file__
    }
    digest = hashlib.blake2b(msgspec.json.encode([values, str(torch.__version__)], order="sorted"))
    for path in [*files, *(Path(code[name]) for name in sorted(code))]:
        content = path.read_bytes()
        digest.update(f"\0{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
