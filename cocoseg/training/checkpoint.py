"""A training run's state at the end of an epoch, so that an interrupted run can go on.

The file is whole or not there. It belongs to one run only, by its name: the run's fingerprint, over
parameters, data and code, is the same in whatever folder the run happens.
"""

import hashlib
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import torch

from cocoseg.core.files import atomic_file

logger = logging.getLogger(__name__)

TrainingState = dict[str, Any]
"""Tensors and plain values, nested."""

_KEPT = 8
"""How many checkpoints a folder keeps, of runs that go on at the same time or have been killed."""


@dataclass(frozen=True)
class CheckpointFile:
    """The checkpoint of the run with this fingerprint, in a folder that several runs may share."""

    directory: Path
    fingerprint: str

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.directory / f"{self.fingerprint}.pt"

    def save(self, state: TrainingState) -> None:
        """Replace the file, and remove the oldest of others where there are many.

        torch's own format keeps the tensors' memory layout, on which the last bits of sums depend.
        """
        # The same run may go on in two processes: neither may write into the other's file.
        own = self.path.with_suffix(f".{os.getpid()}.pt")
        with atomic_file(own) as temporary:
            torch.save(state, temporary)
        own.replace(self.path)
        with suppress(FileNotFoundError):  # another run has removed one just now
            files = [*self.directory.glob("*.pt"), *self.directory.glob(".*.pt.tmp")]
            for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)[:-_KEPT]:
                path.unlink()

    def load(self) -> TrainingState | None:
        """The state to go on from, on the CPU, or None where there is none of this very run."""
        try:
            state: TrainingState = torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (RuntimeError, EOFError, UnpicklingError):
            logger.warning("%s is damaged and not used", self.path)
            return None
        return state

    def remove(self) -> None:
        """Remove the file of a run that has ended well."""
        self.path.unlink(missing_ok=True)


def fingerprint(values: Mapping[str, Any], files: Iterable[Path]) -> str:
    """A hash over the values, the files' names and contents, the library's loaded code and torch.

    The folders in which files and code lie make no difference.
    """
    code = {
        name: module.__file__
        for name, module in sys.modules.items()
        if name.startswith("cocoseg.") and module.__file__ and not name.startswith("cocoseg.params")
    }
    digest = hashlib.blake2b(
        msgspec.json.encode([values, str(torch.__version__)], order="sorted"), digest_size=16
    )
    for path in [*files, *(Path(code[name]) for name in sorted(code))]:
        content = path.read_bytes()
        digest.update(f"\0{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
