"""A training run's state at the end of an epoch, so that an interrupted run can go on.

The file is safetensors: no pickle, and whole or not there. It belongs to one run only: its
fingerprint covers parameters, data and code.
"""

import hashlib
import logging
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cocoseg.common.files import atomic_file

logger = logging.getLogger(__name__)


@dataclass
class Checkpoint:
    """`tensors` by name, and `history`: the figures of each finished epoch."""

    tensors: dict[str, Tensor]
    history: list[dict[str, Any]]


@dataclass(frozen=True)
class CheckpointFile:
    """Where a run's checkpoint lies, and the fingerprint of the run."""

    path: Path
    fingerprint: str

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the file."""
        notes = {"fingerprint": self.fingerprint, "history": checkpoint.history}
        tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
        with atomic_file(self.path) as temporary:
            save_file(tensors, temporary, metadata={"run": msgspec.json.encode(notes).decode()})

    def load(self) -> Checkpoint | None:
        """The state to go on from, or None where there is none of this very run."""
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                notes = msgspec.json.decode((file.metadata() or {}).get("run", "{}"))
                if notes.get("fingerprint") != self.fingerprint:
                    logger.info("%s is of another run and not used", self.path)
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, msgspec.DecodeError):
            logger.warning("%s is damaged and not used", self.path)
            return None
        return Checkpoint(tensors, notes["history"])

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
