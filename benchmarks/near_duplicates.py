"""Count the planted near-duplicates that are found, and false pairs.

    python -m benchmarks.near_duplicates [--workers 2] [--many 8000]

Each image of the mirror gets one altered copy of each kind. Pairs of an image and its own copy are
counted by kind, all other pairs as false. Then the search is timed on `--many` distinct files.
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import machine, peak_memory
from cocoseg.core.seeding import generator
from cocoseg.curation.near_duplicates import find_near_duplicates
from tests.planted import KINDS, plant

MIRROR = Path("../shared/coco-mirror")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--many", type=int, default=8000)
    options = parser.parse_args()
    originals = sorted(MIRROR.glob("*2017/*.jpg"))
    print(machine("numpy", "scipy", "pillow"))
    with tempfile.TemporaryDirectory() as name:
        images = {f"original/{path.stem}": path for path in originals}
        for kind in KINDS:
            for path in originals:
                images[f"{kind}/{path.stem}"] = plant(path, kind, Path(name))
        found = find_near_duplicates(images, options.workers)
        by_kind: Counter[str] = Counter()
        false = []
        for pair in found:
            names = pair.first.split("/"), pair.second.split("/")
            kinds, stems = zip(*names, strict=True)
            if stems[0] != stems[1]:
                false.append(pair)
            elif "original" in kinds:
                by_kind[min(kinds, key=lambda kind: kind == "original")] += 1
        for kind in KINDS:
            print(f"{kind:30} {by_kind[kind]} of {len(originals)}")
        pairs = len(images) * (len(images) - 1) // 2
        print(f"false: {len(false)} of {pairs} pairs", *false, sep="\n")
        _time(originals, Path(name), options)


def _time(originals: list[Path], directory: Path, options: argparse.Namespace) -> None:
    """Time the search on distinct files made of shuffled tiles, as slow to decode as images."""
    many = {}
    for number in range(options.many):
        draw = generator(0, "many", number)
        with Image.open(originals[number % len(originals)]) as image:
            tiled = _shuffled(np.asarray(image.convert("RGB")), draw)
        many[str(number)] = directory / f"many_{number}.jpg"
        Image.fromarray(tiled).save(many[str(number)], quality=90)
    started, before = time.perf_counter(), sum(os.times()[:4])
    found = find_near_duplicates(many, options.workers)
    seconds, busy = time.perf_counter() - started, sum(os.times()[:4]) - before
    print(
        f"{options.many} files: {seconds:.1f} s, {1000 * seconds / options.many:.2f} s per 1,000 "
        f"({busy:.1f} CPU seconds); {len(found)} pairs; peak {peak_memory():.0f} MiB"
    )


def _shuffled(image: NDArray[np.uint8], draw: np.random.Generator) -> NDArray[np.uint8]:
    height, width = (side // 4 * 4 for side in image.shape[:2])
    tiles = image[:height, :width].reshape(4, height // 4, 4, width // 4, 3).swapaxes(1, 2)
    order = draw.permutation(16)
    mixed = tiles.reshape(16, height // 4, width // 4, 3)[order].reshape(tiles.shape)
    return np.ascontiguousarray(mixed.swapaxes(1, 2).reshape(height, width, 3))


if __name__ == "__main__":
    main()
