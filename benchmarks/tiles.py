"""Scores and time of a run's test images, whole and in tiles.

Each image is predicted alone, and in mosaics of 16 images, in which all objects are small.
`--project` is the directory of a finished run with `data/` and `models/`.

    python -m benchmarks.tiles --tiles full 128
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import machine
from cocoseg.coco.instances import Annotation, read_instances
from cocoseg.core.labels import IGNORE_INDEX, write_mask
from cocoseg.evaluation.boundary import count_boundaries
from cocoseg.evaluation.object_recall import count_objects, objects_by_stem, summarize_objects
from cocoseg.inference.backends import TorchNetwork
from cocoseg.inference.batches import Views, predict_samples
from cocoseg.inference.confusion import count_confusion, mean_iou, ratio
from cocoseg.inference.dataset import Sample, read_samples
from cocoseg.inference.tiling import Tiles
from cocoseg.models.weights import load_model

SIDE = 4
"""Images along each side of a mosaic."""


@dataclass(frozen=True)
class Part:
    """The position of a test image in a predicted image, and its objects."""

    place: tuple[slice, slice]
    objects: Sequence[Annotation]


Scene = tuple[Sample, list[Part]]


def mosaics(directory: Path, scenes: Sequence[Scene]) -> Iterator[Scene]:
    """Mosaics of SIDE x SIDE landscape images; the remaining pixels are ignored."""
    sizes = [(scene, scene[0].size()) for scene in scenes]
    landscape = [(scene, size) for scene, size in sizes if size[0] <= size[1]]
    height, width = (max(size[axis] for _, size in landscape) for axis in (0, 1))
    for first in range(0, len(landscape) - SIDE**2 + 1, SIDE**2):
        pixels = np.zeros((SIDE * height, SIDE * width, 3), np.uint8)
        ground_truth = np.full(pixels.shape[:2], IGNORE_INDEX, np.uint8)
        parts = []
        for number, ((sample, (part,)), (h, w)) in enumerate(landscape[first : first + SIDE**2]):
            top, left = number // SIDE * height, number % SIDE * width
            place = slice(top, top + h), slice(left, left + w)
            image, labels = sample.read()
            pixels[place], ground_truth[place] = image.permute(1, 2, 0), labels
            parts.append(Part(place, part.objects))
        mosaic = Sample(directory / f"{first}.png", directory / f"{first}_mask.png")
        Image.fromarray(pixels).save(mosaic.image)
        write_mask(mosaic.mask, ground_truth)
        yield mosaic, parts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--tiles", nargs="+", default=["full"])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine("torch"))
    data = options.project / "data"
    objects = objects_by_stem(read_instances(data / "selection.json").instances)
    samples = read_samples(data / "splits/test.txt", data / "images", data / "masks")
    everything = slice(None), slice(None)
    alone = [(sample, [Part(everything, objects[sample.image.stem])]) for sample in samples]
    with tempfile.TemporaryDirectory() as name:
        for title, scenes in (("alone", alone), ("mosaics", list(mosaics(Path(name), alone)))):
            print(f"{len(scenes)} {title}")
            for tiles in [None, *(t if t == "full" else int(t) for t in options.tiles)]:
                score(options.project / "models/model.safetensors", scenes, tiles)


def score(model_file: Path, scenes: Sequence[Scene], tiles: Tiles | None) -> None:
    network = TorchNetwork(*load_model(model_file), torch.device("cpu"))
    classes = len(network.card.classes)
    confusion, boundaries = np.zeros((classes, classes), np.int64), np.zeros((classes, 2), np.int64)
    found_objects = 0
    started = time.perf_counter()
    samples = [sample for sample, _ in scenes]
    views = Views(tiles=tiles)
    for found in predict_samples(network, samples, batch_size=8, workers=0, views=views):
        for part in scenes[found.index][1]:
            ground_truth, labels = (
                np.ascontiguousarray(maps.numpy()[part.place])
                for maps in (found.ground_truth, found.labels)
            )
            confusion += count_confusion(ground_truth, labels, classes)
            boundaries += count_boundaries(ground_truth, labels, classes)
            found_objects = found_objects + count_objects(part.objects, ground_truth, labels)
    seconds = (time.perf_counter() - started) / len(scenes)
    sizes = summarize_objects(found_objects)
    recalls = (
        f"{name} {row['objects_found']:.2f} of {row['objects']}" for name, row in sizes.items()
    )
    boundary = np.nanmean(ratio(*boundaries.T))
    print(
        f"{tiles or 'whole':<6} mean IoU {mean_iou(confusion):.3f}, boundary IoU {boundary:.3f}, "
        f"found: {', '.join(recalls)}; {seconds:.2f} s per image",
        flush=True,
    )


if __name__ == "__main__":
    main()
