"""Recall of objects by size.

An object is an annotated instance that is not a crowd region. Its area is the number of pixels that
its annotation covers. Sizes are COCO's: small is below 32 x 32 pixels, large is 96 x 96 or more.
The visible pixels of an object are the pixels of its area that have its class in the mask. Objects
without visible pixels are not counted.

Semantic segmentation predicts no objects, so there is recall by size, but no precision.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from cocoseg.coco.instances import SIZES, Annotation, Instances
from cocoseg.coco.rasterize import decode_region, encode_annotation
from cocoseg.core.labels import Labels
from cocoseg.core.values import rounded
from cocoseg.inference.confusion import ratio


class ObjectRecall(TypedDict):
    """The recall of the objects of one size.

    Attributes:
        area_below: the upper limit of the area in pixels, exclusive; None for large objects.
        objects: the number of objects.
        objects_found: the fraction of objects of whose visible pixels at least half are predicted
            correctly.
        pixels: the number of visible pixels.
        recall: the fraction of visible pixels that are predicted correctly.
    """

    area_below: int | None
    objects: int
    objects_found: float | None
    pixels: int
    recall: float | None


_LIMITS = [limit for limit in SIZES.values() if limit]


def objects_by_stem(selection: Instances) -> dict[str, list[Annotation]]:
    """Group the objects of a selection by the stem of their image."""
    stems = {image.id: image.stem for image in selection.images}
    objects: dict[str, list[Annotation]] = {stem: [] for stem in stems.values()}
    for annotation in selection.annotations:
        if not annotation.iscrowd:
            objects[stems[annotation.image_id]].append(annotation)
    return objects


def count_objects(
    objects: Sequence[Annotation], ground_truth: Labels, prediction: Labels
) -> NDArray[np.int64]:
    """Count the objects of one image.

    Args:
        objects: the annotations; their category IDs are labels.
        ground_truth: uint8 (H, W).
        prediction: uint8 (H, W).

    Returns:
        For each size, int64 (sizes, 4): objects, found objects, visible pixels, and visible pixels
        that are predicted correctly.
    """
    counts = np.zeros((len(SIZES), 4), np.int64)
    height, width = ground_truth.shape
    for annotation in objects:
        region = decode_region(encode_annotation(annotation, width, height))
        visible = region.pixels & (region.of(ground_truth) == annotation.category_id)
        correct = visible & (region.of(prediction) == annotation.category_id)
        pixels, hits = int(visible.sum()), int(correct.sum())
        if pixels:
            size = np.searchsorted(_LIMITS, region.pixels.sum(), side="right")
            counts[size] += [1, 2 * hits >= pixels, pixels, hits]
    return counts


def summarize_objects(counts: NDArray[np.int64]) -> dict[str, ObjectRecall]:
    """The recall of each size, from counts (sizes, 4) summed over images."""
    objects, found, pixels, correct = counts.T
    return {
        size: {
            "area_below": limit,
            "objects": int(objects[i]),
            "objects_found": rounded(ratio(found, objects)[i]),
            "pixels": int(pixels[i]),
            "recall": rounded(ratio(correct, pixels)[i]),
        }
        for i, (size, limit) in enumerate(SIZES.items())
    }
