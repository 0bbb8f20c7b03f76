"""Small revisions in directories, without Git and DVC."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cocoseg.core.errors import UserError
from cocoseg.core.files import write_json
from cocoseg.core.labels import Labels, write_mask
from cocoseg.experiments.revisions import Revision, Split
from cocoseg.inference.confusion import count_confusion

CLASSES = ("background", "cat", "dog")


@dataclass(frozen=True)
class DirectoryRevision(Revision):
    """A revision whose files are in a directory."""

    directory: Path

    def read(self, path: str) -> bytes:
        try:
            return (self.directory / path).read_bytes()
        except FileNotFoundError:
            raise UserError(f"{self.name} has no {path}") from None

    def _is_tracked(self, path: str) -> bool:
        return (self.directory / path).is_file()

    def models_tested(self) -> int:
        return 1

    def file_names(self, directory: str) -> list[str]:
        return sorted(path.name for path in (self.directory / directory).iterdir())


def write_revision(
    directory: Path,
    ground_truths: Mapping[str, Labels],
    predictions: Mapping[str, Labels],
    *,
    classes: Sequence[str] = CLASSES,
    trained_on: Sequence[str] = (),
    epochs: int = 1,
    scored_with_epochs: int = 1,
    split: Split = "val",
    fold: int | None = None,
) -> DirectoryRevision:
    """Write the files of a run; images are gray. The directory has the name of the revision."""
    for name in ("images", "masks", "predictions", "splits"):
        (directory / "data" / name).mkdir(parents=True)
    for stem, labels in ground_truths.items():
        write_mask(directory / f"data/masks/{stem}.png", labels)
        Image.new("RGB", labels.shape[::-1], (90, 90, 90)).save(
            directory / f"data/images/{stem}.png"
        )
    for stem, labels in predictions.items():
        write_mask(directory / f"data/predictions/{stem}.png", labels)
    (directory / "data/splits/train.txt").write_text("".join(f"{stem}\n" for stem in trained_on))
    (directory / "params.yaml").write_text(
        f"train:\n  epochs: {epochs}\n  lr: 0.1\nsplit:\n  fold: {json.dumps(fold)}\n"
    )
    lock = "stages:\n  train:\n    params:\n      params.yaml:\n        train.epochs: {}\n"
    (directory / "dvc.lock").write_text(lock.format(scored_with_epochs))
    counts = {
        "classes": list(classes),
        "confusions": {
            stem: count_confusion(
                ground_truths[stem].astype(np.uint8), labels, len(classes)
            ).tolist()
            for stem, labels in predictions.items()
        },
        "ground_truths": {
            stem: hashlib.md5(labels.tobytes()).hexdigest()
            for stem, labels in ground_truths.items()
            if stem in predictions
        },
    }
    write_json(directory / f"metrics/{split}_images.json", counts)
    return DirectoryRevision(directory.name, "0123456789", directory)
