"""Near-duplicate photos: how many planted copies are found, how many pairs are found that are none.

    python -m benchmarks.duplicates [--workers 2] [--many 8000]

Each photo of the mirror gets one altered copy of each kind; what is found between a photo and its
own copies is counted by kind, and everything else as false. Then `--many` files of which no two are
alike are searched for the time that it takes.
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
from cocoseg.curation.near_duplicates import find_duplicates
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
        photos = {f"original/{path.stem}": path for path in originals}
        for kind in KINDS:
            for path in originals:
                photos[f"{kind}/{path.stem}"] = plant(path, kind, Path(name))
        found = find_duplicates(photos, options.workers)
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
        pairs = len(photos) * (len(photos) - 1) // 2
        print(f"false: {len(false)} of {pairs} pairs", *false, sep="\n")
        _time(originals, Path(name), options)


def _time(originals: list[Path], directory: Path, options: argparse.Namespace) -> None:
    """Search files that are as slow to decode as photos: their tiles, in any order."""
    many = {}
    for number in range(options.many):
        draw = generator(0, "many", number)
        with Image.open(originals[number % len(originals)]) as photo:
            tiled = _rearranged(np.asarray(photo.convert("RGB")), draw)
        many[str(number)] = directory / f"many_{number}.jpg"
        Image.fromarray(tiled).save(many[str(number)], quality=90)
    started, before = time.perf_counter(), sum(os.times()[:4])
    found = find_duplicates(many, options.workers)
    seconds, busy = time.perf_counter() - started, sum(os.times()[:4]) - before
    print(
        f"{options.many} files: {seconds:.1f} s, {1000 * seconds / options.many:.2f} s for 1,000 "
        f"({busy:.1f} s of all cores); {len(found)} pairs; peak {peak_memory():.0f} MiB"
    )


def _rearranged(photo: NDArray[np.uint8], draw: np.random.Generator) -> NDArray[np.uint8]:
    height, width = (side // 4 * 4 for side in photo.shape[:2])
    tiles = photo[:height, :width].reshape(4, height // 4, 4, width // 4, 3).swapaxes(1, 2)
    order = draw.permutation(16)
    mixed = tiles.reshape(16, height // 4, width // 4, 3)[order].reshape(tiles.shape)
    return np.ascontiguousarray(mixed.swapaxes(1, 2).reshape(height, width, 3))


if __name__ == "__main__":
    main()
