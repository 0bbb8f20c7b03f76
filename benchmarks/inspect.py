"""Time, CPU time and memory of the stage `inspect` at the size of the published protocol.

    python -m benchmarks.inspect [--images 8000] [--source-images 40504] [--runs 3]

The annotations repeat COCO's (the sample's without the mirror). All images of one size are links
to one file, since the page decodes only a few dozen of them. The inputs of the stage are made in a
temporary directory before the measurement.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.annotation_files import CLASSES, original_document, write_repeated
from benchmarks.machine import machine
from cocoseg.coco.instances import ImageRecord, read_instances
from cocoseg.coco.rasterize import write_masks
from cocoseg.coco.rejections import write_rejections
from cocoseg.core.files import atomic_directory, write_json
from cocoseg.curation.near_duplicates import count_near_duplicates, write_near_duplicates
from cocoseg.curation.selection import select, write_selection
from cocoseg.curation.splits import split_images, summarize_splits, write_splits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--source-images", type=int, default=40_504)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    root = Path.cwd()
    print(machine("numpy", "pycocotools", "pillow"))
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        name = prepare(directory, arguments.images, arguments.source_images)
        print(f"annotations: {name}; {arguments.images} of {arguments.source_images} images")
        for _ in range(arguments.runs):
            command = [sys.executable, "-m", "stages.inspect"]
            environment = {**os.environ, "PYTHONPATH": str(root)}
            before = _processor_seconds()
            subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True)
            spent = _processor_seconds() - before
            figures = json.loads((directory / "metrics/machine/inspect.json").read_text())
            size = (directory / "metrics/data.html").stat().st_size
            print(
                f"{figures['seconds']:.1f} s, {spent:.1f} s of CPU time, "
                f"peak {figures['peak_memory_mib']} MiB, page {size / 1e6:.1f} MB"
            )


def _processor_seconds() -> float:
    """CPU seconds of finished child processes and of their children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def prepare(directory: Path, images: int, source_images: int) -> str:
    """Write the inputs of the stage to an empty directory; return the name of the annotations."""
    name, document = original_document()
    shutil.copy("params.yaml", directory)
    annotations = directory / "data/annotations/instances.json"
    for path in (annotations.parent, directory / "data/masks", directory / "data/images"):
        path.mkdir(parents=True)
    write_repeated(annotations, document, source_images)
    read = read_instances(annotations)
    selection = select(
        read,
        CLASSES,
        max_instances=10,
        max_images=images,
        prefer="rare",
        seed=0,
    )
    write_selection(directory / "data/selection.json", selection.instances)
    write_rejections(directory / "data/rejected.csv", selection.rejections, read.instances)
    write_json(directory / "metrics/filter.json", selection.summary())
    kept = selection.instances
    masks = write_masks(kept, directory / "data/masks", overlap="last", crowd="ignore", workers=2)
    write_json(directory / "metrics/mask.json", masks)
    splits = split_images(kept, {"train": 8, "val": 1, "test": 1}, seed=0)
    with atomic_directory(directory / "data/splits") as temporary:
        write_splits(temporary, splits)
    write_near_duplicates(directory / "data/near_duplicates.csv", [])
    counts = count_near_duplicates([], splits)
    summary = {**summarize_splits(kept, splits), "near_duplicates": counts}
    write_json(directory / "metrics/split.json", summary)
    for image in kept.images:
        file = _image_file(image, directory)
        (directory / "data/images" / image.file_name).hardlink_to(file)
    return name


def _image_file(image: ImageRecord, directory: Path) -> Path:
    path = directory / f"{image.width}x{image.height}.jpg"
    if not path.exists():
        noise = np.random.default_rng(0).integers(0, 256, (image.height // 4 + 1, 160, 3), np.uint8)
        Image.fromarray(noise).resize((image.width, image.height)).save(path)
    return path


if __name__ == "__main__":
    main()
