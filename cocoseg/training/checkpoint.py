"""Checkpoints, from which an interrupted training run resumes.

A checkpoint is written atomically after each epoch. Its name is the fingerprint of the run, a hash
of parameters, data and code, so a run never resumes from the checkpoint of a different run. The
fingerprint does not depend on the project's directory.
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
from cocoseg.core.values import read_yaml

logger = logging.getLogger(__name__)

TrainingState = dict[str, Any]
"""Nested tensors and plain values."""

_KEPT = 8
"""The number of checkpoints to keep in a directory: of concurrent runs and of killed ones."""


@dataclass(frozen=True)
class CheckpointFile:
    """The checkpoint file of one run.

    Attributes:
        directory: the directory, which may contain checkpoints of other runs.
        fingerprint: the fingerprint of the run.
    """

    directory: Path
    fingerprint: str

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.directory / f"{self.fingerprint}.pt"

    def save(self, state: TrainingState) -> None:
        """Write the file atomically, and delete the oldest files if the directory has too many.

        PyTorch's format preserves the memory layout of tensors, which affects rounding.
        """
        # Two processes may resume the same run; each writes its own temporary file.
        own = self.path.with_suffix(f".{os.getpid()}.pt")
        with atomic_file(own) as temporary:
            torch.save(state, temporary)
        own.replace(self.path)
        with suppress(FileNotFoundError):  # another run has just deleted one
            files = [*self.directory.glob("*.pt"), *self.directory.glob(".*.pt.tmp")]
            for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)[:-_KEPT]:
                path.unlink()

    def load(self) -> TrainingState | None:
        """Load the state onto the CPU; None if the file is missing or damaged."""
        try:
            state: TrainingState = torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (RuntimeError, EOFError, UnpicklingError):
            logger.warning("%s is damaged; training starts from the first epoch", self.path)
            return None
        return state

    def remove(self) -> None:
        """Delete the file, after the run has finished."""
        self.path.unlink(missing_ok=True)


def explain_more_epochs(params: Mapping[str, Any], lock: Path) -> None:
    """Log why a run that only has more epochs than the finished one starts from the first epoch.

    A training that continued would differ from an uninterrupted one, because the learning rate of
    each step depends on the number of epochs.

    Args:
        params: section `train` of params.yaml.
        lock: dvc.lock, which has the parameters of the finished run until this one ends.
    """
    stages = (read_yaml(lock) or {}).get("stages", {}) if lock.is_file() else {}
    finished = stages.get("train", {}).get("params", {}).get("params.yaml", {}).get("train", {})
    before, now = finished.get("epochs", params["epochs"]), params["epochs"]
    if before < now and {**finished, "epochs": now} == params:
        logger.info(
            "train.epochs was %d in the finished run and is %d: training starts from the first "
            "epoch, because the learning rate falls to zero over the epochs of a run; to train the "
            "finished model further, see docs/fine-tuning.md",
            *(before, now),
        )


def fingerprint(values: Mapping[str, Any], files: Iterable[Path]) -> str:
    """Hash everything that determines the result of a run.

    The hash covers the values, the name and content of each file, the version of PyTorch and all
    loaded modules of `cocoseg` except `cocoseg.params`: parameters count by their values, so an
    edited docstring of some section does not discard an interrupted run.

    Args:
        values: JSON values, such as the parameters.
        files: the input files. Their directories do not matter, their order does.

    Returns:
        32 hexadecimal digits.
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
