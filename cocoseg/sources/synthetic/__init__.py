"""The built-in sample: a small COCO data set that is drawn locally."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cocoseg.coco.instances import ImageRecord
from cocoseg.core.files import atomic_file, write_text
from cocoseg.core.parallel import in_processes
from cocoseg.core.progress import show_progress
from cocoseg.params.download import SampleParams
from cocoseg.sources.synthetic.scenes import annotations_json, draw_image


@dataclass(frozen=True)
class SampleSource:
    """The built-in sample.

    Attributes:
        params: section `download.sample` of params.yaml.
        workers: the number of processes that draw images.
    """

    params: SampleParams
    workers: int

    def write_annotations(self, path: Path) -> None:
        params = self.params
        write_text(path, annotations_json(params.images, params.width, params.height, params.seed))

    def fetch_images(self, images: Sequence[ImageRecord], directory: Path) -> int:
        # A file does not show which seed and code drew it, so each image is drawn and compared.
        draw = partial(_draw_file, directory=directory, seed=self.params.seed)
        drawn = in_processes(draw, images, self.workers)
        return sum(show_progress(drawn, "images", len(images)))

    def discard_image(self, path: Path) -> None:
        path.unlink()  # it can be drawn again


def _draw_file(image: ImageRecord, directory: Path, seed: int) -> bool:
    """Draw one image; return whether `directory` did not contain the same file yet."""
    buffer = io.BytesIO()
    draw_image(image.id, image.width, image.height, seed).save(buffer, "JPEG", quality=92)
    path = directory / image.file_name
    if path.is_file() and path.read_bytes() == buffer.getvalue():
        return False
    with atomic_file(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return True
