"""Where annotations and images come from: COCO's server, or a sample that is drawn on the spot.

source = open_source(load_params(Path("params.yaml")), downloads=Path("data/downloads"))
source.write_annotations(Path("data/annotations/instances.json"))
update_images(source, selection.images, Path("data/images"))
"""

import io
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from cocoseg.annotations import ImageRecord
from cocoseg.attempt import DEFAULT_PATIENCE, Patience
from cocoseg.coco import fetch_annotations, fetch_images
from cocoseg.files import atomic_file, remove, write_text
from cocoseg.images import is_whole
from cocoseg.parallel import in_processes
from cocoseg.params import CocoParams, Params, SampleParams
from cocoseg.sample import annotations_json, draw_image

logger = logging.getLogger(__name__)


class Source(Protocol):
    """Gives COCO annotations, and the image files that they are about."""

    def write_annotations(self, path: Path) -> None:
        """Write the annotations as a COCO instances file. Raises UserError."""

    def bring_images(self, images: Sequence[ImageRecord], folder: Path) -> int:
        """Bring those images into `folder` that are not there and right; return how many.

        Raises UserError when some could not be had; the others are kept.
        """

    def dismiss_image(self, path: Path) -> None:
        """Take a file that is no longer selected out of its folder."""


@dataclass(frozen=True)
class ImagesReport:
    """How many image files were there already, came, and were removed."""

    kept: int
    brought: int
    removed: int

    def figures(self) -> dict[str, int]:
        """For `metrics/machine/images.json`: how much had to be done differs from run to run."""
        return {f"images_{name}": number for name, number in asdict(self).items()}


def open_source(params: Params, downloads: Path) -> Source:
    """The source that `params` names; `downloads` keeps archives and dismissed images."""
    if params.download.source == "sample":
        return SampleSource(params.download.sample, params.runtime.worker_count())
    return CocoSource(params.download.coco, params.runtime.connections, downloads)


def update_images(source: Source, images: Sequence[ImageRecord], folder: Path) -> ImagesReport:
    """Make `folder` hold exactly `images`: bring what is missing, dismiss what is not selected.

    Files are replaced, never written in place: they may be links into DVC's cache. Raises
    UserError as the source does; then nothing but half files of a killed run has been removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for half_file in folder.glob(".*.tmp"):
        remove(half_file)
    brought = source.bring_images(images, folder)
    selected = {image.file_name for image in images}
    unselected = [path for path in folder.iterdir() if path.name not in selected]
    for path in unselected:
        if path.is_file():
            source.dismiss_image(path)
        remove(path)
    report = ImagesReport(kept=len(images) - brought, brought=brought, removed=len(unselected))
    logger.info("%s: %s", folder, ", ".join(f"{n} {what}" for what, n in asdict(report).items()))
    return report


@dataclass(frozen=True)
class CocoSource:
    """COCO's server or a mirror; `connections` images are fetched at once.

    Archives and dismissed images are kept in `downloads`, so that returning to an earlier selection
    asks for nothing. (DVC cannot restore them: its run cache ignores stages with `persist: true`.)
    """

    params: CocoParams
    connections: int
    downloads: Path
    patience: Patience = DEFAULT_PATIENCE

    def write_annotations(self, path: Path) -> None:
        fetch_annotations(
            self.params.base_url,
            self.params.split,
            self.params.md5,
            self.downloads,
            path,
            patience=self.patience,
        )

    def bring_images(self, images: Sequence[ImageRecord], folder: Path) -> int:
        missing = [image for image in images if not _is_there(image, folder)]
        for image in missing:
            if _is_there(image, self._dismissed):
                _move(self._dismissed / image.file_name, folder / image.file_name)
        unknown = [image for image in missing if not _is_there(image, folder)]
        if unknown:
            fetch_images(
                self.params.base_url,
                self.params.split,
                unknown,
                folder,
                connections=self.connections,
                patience=self.patience,
            )
        return len(missing)

    def dismiss_image(self, path: Path) -> None:
        _move(path, self._dismissed / path.name)

    @property
    def _dismissed(self) -> Path:
        return self.downloads / "images"


def _is_there(image: ImageRecord, folder: Path) -> bool:
    return is_whole(folder / image.file_name, image.width, image.height)


def _move(source: Path, target: Path) -> None:
    """Move a file, also to another file system, so that `target` appears only when whole."""
    with atomic_file(target) as temporary:
        shutil.move(source, temporary)


@dataclass(frozen=True)
class SampleSource:
    """The built-in sample; drawn by `workers` processes."""

    params: SampleParams
    workers: int

    def write_annotations(self, path: Path) -> None:
        params = self.params
        write_text(path, annotations_json(params.images, params.width, params.height, params.seed))

    def bring_images(self, images: Sequence[ImageRecord], folder: Path) -> int:
        # Nothing in a file tells which seed and code drew it: each is drawn anew and compared.
        draw = partial(_draw_file, folder=folder, seed=self.params.seed)
        return sum(in_processes(draw, images, self.workers))

    def dismiss_image(self, path: Path) -> None:
        path.unlink()


def _draw_file(image: ImageRecord, folder: Path, seed: int) -> bool:
    """Draw one image into `folder` unless the same is there; return whether it was not."""
    buffer = io.BytesIO()
    draw_image(image.id, image.width, image.height, seed).save(buffer, "JPEG", quality=92)
    path = folder / image.file_name
    if path.is_file() and path.read_bytes() == buffer.getvalue():
        return False
    with atomic_file(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return True
