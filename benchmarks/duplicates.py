"""Near-duplicate photos: how many planted copies are found, how many pairs are found that are none.

    python -m benchmarks.duplicates [--workers 2] [--many 8000]

Each photo of the mirror gets one altered copy of each kind; what is found between a photo and its
own copies is counted by kind, and everything else as false. Then `--many` files of which no two are
alike are searched for the time that it takes.
"""

import argparse
import io
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.machine import machine, peak_memory
from cocoseg.annotations.duplicates import find_duplicates
from cocoseg.common.randomness import generator

MIRROR = Path("../shared/coco-mirror")

Alter = Callable[[Image.Image, np.random.Generator], Image.Image]


def crop(photo: Image.Image, draw: np.random.Generator, largest: float) -> Image.Image:
    """Cut a share of up to `largest` off each side, drawn for each."""
    width, height = photo.size
    left, top, right, bottom = draw.uniform(0, largest, 4) * (width, height, width, height)
    return photo.crop((round(left), round(top), round(width - right), round(height - bottom)))


def rescale(photo: Image.Image, draw: np.random.Generator) -> Image.Image:
    factor = draw.uniform(0.25, 0.8)
    return photo.resize((round(photo.width * factor), round(photo.height * factor)))


def recompress(photo: Image.Image, draw: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=int(draw.integers(20, 60)))
    return Image.open(file)


def mirror(photo: Image.Image) -> Image.Image:
    return photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


KINDS: dict[str, Alter] = {
    "copied": lambda photo, draw: photo,
    "rescaled to 25-80%": rescale,
    "recompressed at 20-60": recompress,
    "cropped by up to 5% a side": lambda photo, draw: crop(photo, draw, 0.05),
    "cropped by up to 10% a side": lambda photo, draw: crop(photo, draw, 0.1),
    "cropped by 10% on all sides": lambda photo, draw: photo.crop(
        tuple(round(share * side) for share in (0.1, 0.9) for side in photo.size)
    ),
    "mirrored": lambda photo, draw: mirror(photo),
    "all of it": lambda photo, draw: recompress(
        rescale(crop(mirror(photo), draw, 0.1), draw), draw
    ),
}


def plant(originals: list[Path], folder: Path, kinds: dict[str, Alter] = KINDS) -> dict[str, Path]:
    """The originals, and an altered copy of each by each kind, by names `KIND/STEM`."""
    photos = {f"original/{path.stem}": path for path in originals}
    for number, (kind, alter) in enumerate(kinds.items()):
        for path in originals:
            with Image.open(path) as photo:
                altered = alter(photo.convert("RGB"), generator(0, "plant", kind, path.stem))
            photos[f"{kind}/{path.stem}"] = folder / f"{number}_{path.stem}.jpg"
            altered.save(photos[f"{kind}/{path.stem}"], quality=90)
    return photos


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
        photos = plant(originals, Path(name))
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


def _time(originals: list[Path], folder: Path, options: argparse.Namespace) -> None:
    """Search files that are as slow to decode as photos: their tiles, in any order."""
    many = {}
    for number in range(options.many):
        draw = generator(0, "many", number)
        with Image.open(originals[number % len(originals)]) as photo:
            tiled = _rearranged(np.asarray(photo.convert("RGB")), draw)
        many[str(number)] = folder / f"many_{number}.jpg"
        Image.fromarray(tiled).save(many[str(number)], quality=90)
    started = time.perf_counter()
    found = find_duplicates(many, options.workers)
    seconds = time.perf_counter() - started
    print(
        f"{options.many} files: {seconds:.1f} s, {1000 * seconds / options.many:.2f} s for 1,000;"
        f" {len(found)} pairs; peak {peak_memory():.0f} MiB"
    )


def _rearranged(photo: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    height, width = (side // 4 * 4 for side in photo.shape[:2])
    tiles = photo[:height, :width].reshape(4, height // 4, 4, width // 4, 3).swapaxes(1, 2)
    order = draw.permutation(16)
    mixed = tiles.reshape(16, height // 4, width // 4, 3)[order].reshape(tiles.shape)
    return np.ascontiguousarray(mixed.swapaxes(1, 2).reshape(height, width, 3))


if __name__ == "__main__":
    main()
