"""Annotations to label maps: 0 background, 1…N classes, 255 void.

A painted pixel is exactly a pixel that pycocotools' own decode sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from cocoseg.annotations import (
    Annotation,
    ImageRecord,
    Instances,
    Polygons,
    RunLengths,
    parse_segmentation,
)
from cocoseg.labels import VOID, Labels, write_label_png
from cocoseg.parallel import in_processes


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


def decode_region(segmentation: Polygons | RunLengths, width: int, height: int) -> Region:
    """The pixels of a checked segmentation in an image of `width` x `height` pixels."""
    if isinstance(segmentation, RunLengths):
        counts = {"counts": segmentation.counts, "size": list(segmentation.size)}
        encoded = coco_mask.frPyObjects(counts, height, width)
    else:
        encoded = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    left, top, box_width, box_height = (int(value) for value in coco_mask.toBbox(encoded))
    decoded = coco_mask.decode(encoded)[top : top + box_height, left : left + box_width]
    return Region(top, left, decoded.astype(np.bool_))


def paint_labels(
    annotations: Sequence[Annotation],
    width: int,
    height: int,
    *,
    overlap: Literal["last", "small", "void"],
    crowd: Literal["void", "paint", "drop"],
) -> Labels:
    """Paint one image's annotations, whose category ids are labels, into a map (height, width).

    Where two overlap, `overlap` decides: the last painted, the smaller (of equal areas the last),
    or void. Crowd regions become void beneath all instances, are painted as instances, or left out.
    """
    labels = np.zeros((height, width), np.uint8)
    instances: list[tuple[Region, int]] = []
    for annotation in annotations:
        if annotation.iscrowd and crowd == "drop":
            continue
        region = decode_region(
            parse_segmentation(annotation.segmentation, width, height), width, height
        )
        if annotation.iscrowd and crowd == "void":
            region.of(labels)[region.pixels] = VOID
        else:
            instances.append((region, annotation.category_id))
    if overlap == "small":
        instances.sort(key=lambda instance: -np.count_nonzero(instance[0].pixels))
    for region, label in instances:
        region.of(labels)[region.pixels] = label
    if overlap == "void":
        covered = np.zeros((height, width), np.uint16)
        for region, _ in instances:
            region.of(covered)[...] += region.pixels
        labels[covered > 1] = VOID
    return labels


def write_masks(
    selection: Instances,
    folder: Path,
    *,
    overlap: Literal["last", "small", "void"],
    crowd: Literal["void", "paint", "drop"],
    workers: int,
) -> dict[str, Any]:
    """Write `<stem>.png` into `folder` for every image of a selection, in `workers` processes.

    Returns the content of `metrics/mask.json`: the number of masks, each label's share of pixels.
    """
    annotations: dict[int, list[Annotation]] = {image.id: [] for image in selection.images}
    for annotation in selection.annotations:
        annotations[annotation.image_id].append(annotation)
    jobs = (
        _MaskJob(image, annotations[image.id], folder / f"{image.stem}.png", overlap, crowd)
        for image in selection.images
    )
    pixels = np.zeros(256, np.int64)
    for counted in in_processes(_write_mask, jobs, workers):
        pixels += counted
    names = {0: "background", VOID: "void"} | {c.id: c.name for c in selection.categories}
    total = int(pixels.sum())
    return {
        "masks": len(selection.images),
        "pixels": total,
        "share": {name: round(int(pixels[label]) / total, 6) for label, name in names.items()},
    }


@dataclass
class _MaskJob:
    image: ImageRecord
    annotations: list[Annotation]
    path: Path
    overlap: Literal["last", "small", "void"]
    crowd: Literal["void", "paint", "drop"]


def _write_mask(job: _MaskJob) -> NDArray[np.int64]:
    """Paint and write one mask; returns its pixel count by label, (256,)."""
    labels = paint_labels(
        job.annotations, job.image.width, job.image.height, overlap=job.overlap, crowd=job.crowd
    )
    write_label_png(job.path, labels)
    return np.bincount(labels.ravel(), minlength=256)
