"""Where annotations and images come from: COCO's server, own files, or a sample drawn on the spot.

source = open_source(load_params(Path("params.yaml")), downloads=Path("data/downloads"))
source.write_annotations(Path("data/annotations/instances.json"))
update_images(source, selection.images, Path("data/images"))
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from cocoseg.annotations.instances import ImageRecord
from cocoseg.common.files import remove
from cocoseg.common.params import Params
from cocoseg.sources.coco import CocoSource
from cocoseg.sources.files import FilesSource
from cocoseg.sources.sample import SampleSource

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
    connections, workers = params.runtime.connections, params.runtime.worker_count()
    match params.download.source:
        case "sample":
            return SampleSource(params.download.sample, workers)
        case "coco":
            return CocoSource(params.download.coco, connections, downloads)
        case "files":
            return FilesSource(params.download.files, connections, workers, downloads)


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
