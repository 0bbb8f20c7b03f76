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

from cocoseg.coco.instances import ImageRecord
from cocoseg.core.files import remove
from cocoseg.params.download import DownloadParams
from cocoseg.params.runtime import RuntimeParams
from cocoseg.sources.coco_server import CocoSource
from cocoseg.sources.local_files import FilesSource
from cocoseg.sources.synthetic import SampleSource

logger = logging.getLogger(__name__)


class Source(Protocol):
    """Gives COCO annotations, and the image files that they are about."""

    def write_annotations(self, path: Path) -> None:
        """Write the annotations as a COCO instances file. Raises UserError."""

    def fetch_images(self, images: Sequence[ImageRecord], directory: Path) -> int:
        """Bring those images into `folder` that are not there and right; return how many.

        Raises UserError when some could not be had; the others are kept.
        """

    def discard_image(self, path: Path) -> None:
        """Take a file that is no longer selected out of its folder."""


@dataclass(frozen=True)
class ImagesReport:
    """How many image files were there already, came, and were removed."""

    kept: int
    fetched: int
    removed: int

    def figures(self) -> dict[str, int]:
        """For `metrics/machine/images.json`: how much had to be done differs from run to run."""
        return {f"images_{name}": number for name, number in asdict(self).items()}


def open_source(params: DownloadParams, runtime: RuntimeParams, downloads: Path) -> Source:
    """The source that `params` names; `downloads` keeps archives and dismissed images."""
    connections, workers = runtime.connections, runtime.worker_count()
    match params.source:
        case "sample":
            return SampleSource(params.sample, workers)
        case "coco":
            return CocoSource(params.coco, connections, downloads)
        case "files":
            return FilesSource(params.files, connections, workers, downloads)


def update_images(source: Source, images: Sequence[ImageRecord], directory: Path) -> ImagesReport:
    """Make `folder` hold exactly `images`: bring what is missing, dismiss what is not selected.

    Files are replaced, never written in place: they may be links into DVC's cache. Raises
    UserError as the source does; then nothing but half files of a killed run has been removed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for half_file in directory.glob(".*.tmp"):
        remove(half_file)
    fetched = source.fetch_images(images, directory)
    selected = {image.file_name for image in images}
    unselected = [path for path in directory.iterdir() if path.name not in selected]
    for path in unselected:
        if path.is_file():
            source.discard_image(path)
        remove(path)
    report = ImagesReport(kept=len(images) - fetched, fetched=fetched, removed=len(unselected))
    logger.info("%s: %s", directory, ", ".join(f"{n} {what}" for what, n in asdict(report).items()))
    return report
