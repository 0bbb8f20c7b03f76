"""Where annotations and images come from: the built-in sample, COCO's server or your own files.

source = open_source(params[DownloadParams], params[RuntimeParams], Path("data/downloads"))
source.write_annotations(Path("data/annotations/instances.json"))
update_images(source, selection.images, Path("data/images"))
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
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
    """A source of COCO annotations and their images."""

    def write_annotations(self, path: Path) -> None:
        """Write the annotations to `path` as a COCO instances file.

        Raises:
            UserError: the annotations cannot be fetched or read.
        """

    def fetch_images(self, images: Sequence[ImageRecord], directory: Path) -> int:
        """Fetch the images that `directory` does not contain yet, or only with other content.

        Returns:
            How many images were fetched.

        Raises:
            UserError: some images could not be fetched; the others were.
        """

    def discard_image(self, path: Path) -> None:
        """Dispose of the file of an image that is no longer selected.

        A source may move the file and keep it. If the file still exists afterwards, the caller
        removes it.
        """


@dataclass(frozen=True)
class ImagesReport:
    """How many image files an update kept, fetched and removed."""

    kept: int
    fetched: int
    removed: int

    def figures(self) -> dict[str, int]:
        """Return the counts for `metrics/machine/images.json`; they depend on earlier runs."""
        return {f"images_{name}": number for name, number in asdict(self).items()}


def open_source(params: DownloadParams, runtime: RuntimeParams, downloads: Path) -> Source:
    """Create the source that the parameters name.

    Args:
        params: section `download` of params.yaml.
        runtime: section `runtime`: parallel connections and worker processes.
        downloads: the directory for archives and discarded images.
    """
    connections, workers = runtime.connections, runtime.worker_count()
    match params.source:
        case "sample":
            return SampleSource(params.sample, workers)
        case "coco":
            return CocoSource(params.coco, connections, downloads)
        case "files":
            return FilesSource(params.files, connections, workers, downloads)


def update_images(source: Source, images: Sequence[ImageRecord], directory: Path) -> ImagesReport:
    """Make a directory contain exactly the given images.

    Files are replaced, never written in place, because they may be links into DVC's cache.

    Args:
        source: the source of the images.
        images: the selected images.
        directory: missing images are fetched into it, all other files are removed from it.

    Raises:
        UserError: some images could not be fetched. Then only temporary files of a killed run have
            been removed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for temporary in directory.glob(".*.tmp"):
        remove(temporary)
    fetched = source.fetch_images(images, directory)
    selected = {image.file_name for image in images}
    unselected = [path for path in directory.iterdir() if path.name not in selected]
    for path in unselected:
        if path.is_file():
            source.discard_image(path)
        remove(path)
    report = ImagesReport(kept=len(images) - fetched, fetched=fetched, removed=len(unselected))
    logger.info("%s: kept %d images, fetched %d, removed %d", directory, *astuple(report))
    return report
