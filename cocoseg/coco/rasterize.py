"""Annotations to label maps: 0 background, 1…N classes, 255 void.

A painted pixel is exactly a pixel that pycocotools' own decode sets.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from cocoseg.coco.bounds import Box
from cocoseg.coco.instances import (
    Annotation,
    ImageRecord,
    Instances,
    Polygons,
    RunLengths,
    parse_segmentation,
)
from cocoseg.core.labels import IGNORE_INDEX, Labels, write_mask
from cocoseg.core.parallel import in_processes

RLE = dict[str, Any]
"""pycocotools' compact form of a region: its `size` [height, width], its `counts` compressed."""


@dataclass
class Region:
    """The pixels of one annotation: `pixels` is its bounding box's part of the image, boolean."""

    top: int
    left: int
    pixels: NDArray[np.bool_]

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """The view of `image` (H, W) beneath the bounding box."""
        height, width = self.pixels.shape
        return image[self.top : self.top + height, self.left : self.left + width]


def encode_region(
    segmentation: Polygons | RunLengths, width: int, height: int, *, whole: bool = False
) -> RLE:
    """A checked segmentation of an image of this size in pixels, in pycocotools' compact form.

    Unless it must be `whole`, to be compared with others of the image, columns to the right of all
    polygons are left out, as they take time to decode.
    """
    encoded: RLE
    if isinstance(segmentation, RunLengths):
        counts = {"counts": segmentation.counts, "size": [height, width]}
        encoded = coco_mask.frPyObjects(counts, height, width)
    else:
        rightmost = max(max(polygon[0::2]) for polygon in segmentation)
        columns = width if whole else max(1, min(width, int(rightmost) + 1))
        encoded = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, columns))
    return encoded


def decode_region(encoded: RLE) -> Region:
    """The pixels of what `encode_region` returns."""
    left, top, width, height = (int(value) for value in coco_mask.toBbox(encoded))
    decoded = coco_mask.decode(encoded)[top : top + height, left : left + width]
    return Region(top, left, decoded.view(np.bool_))


def rasterize(
    annotations: Sequence[Annotation],
    width: int,
    height: int,
    *,
    overlap: Literal["last", "small", "ignore"],
    crowd: Literal["ignore", "paint", "drop"],
    ignored: Iterable[Box] = (),
) -> Labels:
    """Paint one image's annotations, whose category ids are labels, into a map (height, width).

    Where two overlap, `overlap` decides: the last painted, the smaller (of equal areas the last),
    or void. Crowd regions become void beneath all instances, are painted as instances, or left out.
    """
    labels = np.zeros((height, width), np.uint8)
    for left, top, right, bottom in ignored:
        labels[top:bottom, left:right] = IGNORE_INDEX
    instances: list[tuple[int, Polygons | RunLengths]] = []
    for annotation in annotations:
        if annotation.iscrowd and crowd == "drop":
            continue
        segmentation = parse_segmentation(annotation.segmentation, width, height)
        if annotation.iscrowd and crowd == "ignore":
            region = decode_region(encode_region(segmentation, width, height))
            region.of(labels)[region.pixels] = IGNORE_INDEX
        else:
            instances.append((annotation.category_id, segmentation))
    if overlap == "small":
        instances.sort(
            key=lambda instance: coco_mask.area(encode_region(instance[1], width, height)),
            reverse=True,
        )
    painted = np.zeros((height, width), np.bool_)
    for label, segmentation in instances if overlap == "ignore" else _joined(instances):
        region = decode_region(encode_region(segmentation, width, height))
        region.of(labels)[region.pixels] = label
        if overlap == "ignore":
            before = region.of(painted)
            region.of(labels)[before & region.pixels] = IGNORE_INDEX
            before |= region.pixels
    return labels


def _joined(
    instances: Iterable[tuple[int, Polygons | RunLengths]],
) -> Iterator[tuple[int, Polygons | RunLengths]]:
    """Polygons of one label that follow one another as one: most of the time goes into decoding."""
    for label, group in itertools.groupby(instances, itemgetter(0)):
        polygons: Polygons = []
        for _, segmentation in group:
            if isinstance(segmentation, RunLengths):
                yield label, segmentation
            else:
                polygons += segmentation
        if polygons:
            yield label, polygons


def write_masks(
    selection: Instances,
    directory: Path,
    *,
    overlap: Literal["last", "small", "ignore"],
    crowd: Literal["ignore", "paint", "drop"],
    workers: int,
) -> dict[str, Any]:
    """Write `<stem>.png` into `folder` for every image of a selection, in `workers` processes.

    Returns the content of `metrics/mask.json`: the number of masks, each label's share of pixels.
    """
    annotations: dict[int, list[Annotation]] = {image.id: [] for image in selection.images}
    for annotation in selection.annotations:
        annotations[annotation.image_id].append(annotation)
    jobs = (
        _MaskJob(image, annotations[image.id], directory / f"{image.stem}.png", overlap, crowd)
        for image in selection.images
    )
    pixels: Counter[int] = Counter()
    for counted in in_processes(_write_mask, jobs, workers):
        pixels.update(counted)
    names = {0: "background", IGNORE_INDEX: "ignored"} | {
        c.id: c.name for c in selection.categories
    }
    total = pixels.total()
    return {
        "masks": len(selection.images),
        "pixels": total,
        "fraction": {name: round(pixels[label] / total, 6) for label, name in names.items()},
    }


@dataclass
class _MaskJob:
    image: ImageRecord
    annotations: list[Annotation]
    path: Path
    overlap: Literal["last", "small", "ignore"]
    crowd: Literal["ignore", "paint", "drop"]


def _write_mask(job: _MaskJob) -> dict[int, int]:
    """Paint and write one mask; returns its pixel count by label."""
    labels = rasterize(
        job.annotations,
        job.image.width,
        job.image.height,
        overlap=job.overlap,
        crowd=job.crowd,
        ignored=job.image.ignored,
    )
    write_mask(job.path, labels)
    painted = {annotation.category_id for annotation in job.annotations} | {IGNORE_INDEX}
    counted = {label: int(np.count_nonzero(labels == label)) for label in painted}
    return {**counted, 0: labels.size - sum(counted.values())}
