"""How well objects of different sizes are found.

An object is an annotated instance, crowd regions left out. Its area is the number of pixels that
its annotation covers; COCO's limits, 32 x 32 and 96 x 96 pixels, divide areas into small, medium
and large. What is looked for are the object's visible pixels: those of its area that have its
class in the label map. Objects with none, wholly behind others or in void, do not count.

A prediction of classes has no objects of its own. So there is a recall by size, but no precision.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoseg.coco.instances import SIZES, Annotation, Instances, parse_segmentation
from cocoseg.coco.rasterize import decode_region, encode_region
from cocoseg.core.labels import Labels
from cocoseg.core.values import rounded
from cocoseg.inference.confusion import ratio

_LIMITS = [limit for limit in SIZES.values() if limit]


def objects_by_stem(selection: Instances) -> dict[str, list[Annotation]]:
    """The objects of every image of a selection, whose category ids are labels, by its stem."""
    stems = {image.id: image.stem for image in selection.images}
    objects: dict[str, list[Annotation]] = {stem: [] for stem in stems.values()}
    for annotation in selection.annotations:
        if not annotation.iscrowd:
            objects[stems[annotation.image_id]].append(annotation)
    return objects


def count_objects(
    objects: Sequence[Annotation], ground_truth: Labels, prediction: Labels
) -> NDArray[np.int64]:
    """Count one image's objects: (sizes, 4), of each size the number of objects, of those found
    (at least half of their visible pixels are right), of visible pixels, and of the right ones.
    """
    counts = np.zeros((len(SIZES), 4), np.int64)
    height, width = ground_truth.shape
    for annotation in objects:
        segmentation = parse_segmentation(annotation.segmentation, width, height)
        region = decode_region(encode_region(segmentation, width, height))
        visible = region.pixels & (region.of(ground_truth) == annotation.category_id)
        right = visible & (region.of(prediction) == annotation.category_id)
        pixels, hits = int(visible.sum()), int(right.sum())
        if pixels:
            size = np.searchsorted(_LIMITS, region.pixels.sum(), side="right")
            counts[size] += [1, 2 * hits >= pixels, pixels, hits]
    return counts


def summarize_objects(counts: NDArray[np.int64]) -> Mapping[str, Any]:
    """Summed counts as JSON: of each size the objects and pixels, the shares of both found."""
    objects, found, pixels, right = counts.T
    return {
        size: {
            "area_below": limit,
            "objects": int(objects[i]),
            "objects_found": rounded(ratio(found, objects)[i]),
            "pixels": int(pixels[i]),
            "recall": rounded(ratio(right, pixels)[i]),
        }
        for i, (size, limit) in enumerate(SIZES.items())
    }
