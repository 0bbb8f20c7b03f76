"""Write masks, compared with a plain loop with pycocotools and Pillow.

    python -m benchmarks.masks [--images 1000] [--workers 2] [--pairs 5]

The plain loop paints `coco.annToMask` of each annotation into an array and saves it as a palette
PNG with Pillow's defaults. The images repeat COCO's annotations (the sample's without the mirror).
The benchmark checks that both give the same pixels. Reading annotations is not timed.
"""

import argparse
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.annotation_files import CLASSES, original_document, write_repeated
from benchmarks.machine import machine, peak_memory
from cocoseg.coco.instances import Instances, read_instances
from cocoseg.coco.rasterize import write_masks
from cocoseg.core.labels import IGNORE_INDEX, PALETTE
from cocoseg.curation.selection import select, write_selection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        print(memory_of_painting(arguments.peak_of))
        return
    name, document = original_document()
    print(machine("numpy", "pycocotools", "pillow"))
    with tempfile.TemporaryDirectory() as directory:
        file = write_selected(Path(directory) / "selection.json", document, arguments.images)
        selection = read_instances(file).instances
        print(f"annotations: {name}; {len(selection.images)} images")
        _compare_speed(file, selection, arguments.workers, arguments.pairs)
        _compare_memory(Path(directory), document, arguments.images)


def write_selected(path: Path, document: dict[str, Any], images: int) -> Path:
    """Write a selection of at most `images` images."""
    write_repeated(path, document, 3 * images)
    read = read_instances(path)
    selection = select(read, CLASSES, max_instances=10, max_images=images, prefer="random", seed=0)
    write_selection(path, selection.instances)
    return path


def _compare_speed(file: Path, selection: Instances, workers: int, pairs: int) -> None:
    coco = load_coco(file)
    seconds: dict[str, list[float]] = {"plain loop": [], "1 worker": [], f"{workers} workers": []}
    runs: list[Callable[[Path], object]] = [
        lambda directory: paint_plainly(coco, directory),
        lambda directory: write_masks(
            selection, directory, overlap="last", crowd="ignore", workers=1
        ),
        lambda directory: write_masks(
            selection, directory, overlap="last", crowd="ignore", workers=workers
        ),
    ]
    for _ in range(pairs):
        with tempfile.TemporaryDirectory(dir=file.parent) as parent:
            for run, (name, times) in zip(runs, seconds.items(), strict=True):
                directory = Path(parent) / name
                directory.mkdir()
                started = time.perf_counter()
                run(directory)
                times.append(time.perf_counter() - started)
                _require_same_pixels(Path(parent) / "plain loop", directory)
    for name, times in seconds.items():
        ratios = [base / time for base, time in zip(seconds["plain loop"], times, strict=True)]
        rate = statistics.median(len(selection.images) / time for time in times)
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{name:11} {rate:6.0f} images/s, {statistics.median(ratios):.2f} times ({shown})")


def load_coco(file: Path) -> Any:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(None):
        return COCO(file)


def paint_plainly(coco: Any, directory: Path) -> None:
    for image in coco.dataset["images"]:
        labels = np.zeros((image["height"], image["width"]), np.uint8)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        for annotation in sorted(annotations, key=lambda annotation: -annotation["iscrowd"]):
            label = IGNORE_INDEX if annotation["iscrowd"] else annotation["category_id"]
            labels[coco.annToMask(annotation) == 1] = label
        mask = Image.fromarray(labels).convert("P")
        mask.putpalette(PALETTE.tobytes())
        mask.save(directory / f"{Path(image['file_name']).stem}.png")


def _require_same_pixels(expected: Path, found: Path) -> None:
    for path in expected.iterdir():
        if not np.array_equal(
            np.asarray(Image.open(path)), np.asarray(Image.open(found / path.name))
        ):
            raise SystemExit(f"error: the pixels of {path.name} differ")


def _compare_memory(directory: Path, document: dict[str, Any], images: int) -> None:
    for count in (images, 4 * images):
        file = write_selected(directory / f"{count}.json", document, count)
        command = [sys.executable, "-m", "benchmarks.masks", "--peak-of", file]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        content = file.stat().st_size / 2**20
        print(f"{count:6} images, peak MiB: {output.strip()} (selection: {content:.1f} MiB)")


def memory_of_painting(file: Path) -> str:
    """Peak memory in MiB before and after this process writes all masks of a selection."""
    selection = read_instances(file).instances
    before = peak_memory()
    directory = file.with_suffix(".masks")
    directory.mkdir()
    write_masks(selection, directory, overlap="last", crowd="ignore", workers=1)
    shutil.rmtree(directory)
    return f"{before:.0f} before, {peak_memory():.0f} after"


if __name__ == "__main__":
    main()
