"""Rasterization of annotations into masks: 0 background, 1…N classes, 255 ignored.

    labels = rasterize(annotations, 640, 480, overlap="last", crowd="ignore")

A pixel is painted if and only if `pycocotools.mask.decode` sets it.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, TypedDict

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
from cocoseg.core.progress import show_progress

Overlap = Literal["last", "small", "ignore"]
Crowd = Literal["ignore", "paint", "drop"]


class RLE(TypedDict):
    """A region as pycocotools encodes it: size [height, width] and compressed counts."""

    size: list[int]
    counts: bytes


class MaskSummary(TypedDict):
    """The content of `metrics/mask.json`.

    Attributes:
        masks: number of masks.
        pixels: number of pixels in all masks.
        fraction: fraction of the pixels by name of the class, `background` and `ignored` included.
    """

    masks: int
    pixels: int
    fraction: dict[str, float]


@dataclass
class Region:
    """The pixels of one annotation.

    Attributes:
        top: first row of the bounding box.
        left: first column of the bounding box.
        pixels: bool (h, w), the bounding box: True where the annotation covers the image.
    """

    top: int
    left: int
    pixels: NDArray[np.bool_]

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """The bounding box of the region in `image` (H, W), as a view (h, w)."""
        height, width = self.pixels.shape
        return image[self.top : self.top + height, self.left : self.left + width]


def encode_region(
    segmentation: Polygons | RunLengths, width: int, height: int, *, whole: bool = False
) -> RLE:
    """Encode a segmentation as pycocotools does.

    Args:
        segmentation: checked by `parse_segmentation`.
        width: of the image, in pixels.
        height: of the image, in pixels.
        whole: encode the full width of the image, so that regions of an image can be compared.
            Otherwise columns to the right of all polygons are left out, which decodes faster.
    """
    encoded: RLE
    if isinstance(segmentation, RunLengths):
        counts = {"counts": segmentation.counts, "size": [height, width]}
        encoded = coco_mask.frPyObjects(counts, height, width)
    else:
        rightmost = max(max(polygon[0::2]) for polygon in segmentation)
        columns = width if whole else max(1, min(width, int(rightmost) + 1))
        outlines = coco_mask.frPyObjects(segmentation, height, columns)
        encoded = coco_mask.merge(outlines) if len(outlines) > 1 else outlines[0]
    return encoded


def encode_annotation(
    annotation: Annotation, width: int, height: int, *, whole: bool = False
) -> RLE:
    """Encode the region of an annotation, as `encode_region` does.

    Raises:
        InvalidSegmentation: its segmentation is malformed or not within the image.
    """
    segmentation = parse_segmentation(annotation.segmentation, width, height)
    return encode_region(segmentation, width, height, whole=whole)


def decode_region(encoded: RLE) -> Region:
    """Decode the pixels of a region that `encode_region` encoded."""
    left, top, width, height = (int(value) for value in coco_mask.toBbox(encoded))
    decoded = coco_mask.decode(encoded)[top : top + height, left : left + width]
    return Region(top, left, decoded.view(np.bool_))


def rasterize(
    annotations: Sequence[Annotation],
    width: int,
    height: int,
    *,
    overlap: Overlap,
    crowd: Crowd,
    ignored: Iterable[Box] = (),
) -> Labels:
    """Paint the annotations of one image into a mask.

    Args:
        annotations: in the order of painting. `category_id` is the label, 1 to 254.
        width: of the image, in pixels.
        height: of the image, in pixels.
        overlap: the label where annotations overlap. `last`: the annotation painted last. `small`:
            the annotation with the smallest area, then the last. `ignore`: 255.
        crowd: how crowd regions are painted. `ignore`: as 255, beneath all other annotations.
            `paint`: like other annotations. `drop`: not at all.
        ignored: boxes that become 255 beneath all annotations.

    Returns:
        uint8 (height, width): 0 background, 255 ignored, else the label.

    Raises:
        InvalidSegmentation: a segmentation is malformed or not within the image.
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
    """Join consecutive polygons of one label: decoding takes most of the time."""
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
    overlap: Overlap,
    crowd: Crowd,
    workers: int,
) -> MaskSummary:
    """Write the mask of every image of a selection.

    Args:
        selection: images and valid annotations; category ids are labels.
        directory: existing directory; each mask is written to `<stem>.png`, a palette PNG.
        overlap: see `rasterize`.
        crowd: see `rasterize`.
        workers: number of processes; up to 1 means the calling process.

    Returns:
        The number of masks and pixels, and the fraction of pixels of each class.
    """
    annotations: dict[int, list[Annotation]] = {image.id: [] for image in selection.images}
    for annotation in selection.annotations:
        annotations[annotation.image_id].append(annotation)
    jobs = (
        _MaskJob(image, annotations[image.id], directory / f"{image.stem}.png", overlap, crowd)
        for image in selection.images
    )
    pixels: Counter[int] = Counter()
    written = in_processes(_write_mask, jobs, workers)
    for counted in show_progress(written, "masks", len(selection.images)):
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
    overlap: Overlap
    crowd: Crowd


def _write_mask(job: _MaskJob) -> dict[int, int]:
    """Write one mask and count its pixels by label."""
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
