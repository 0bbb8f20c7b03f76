"""Warnings about a selection, before any image is fetched."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable

from pycocotools import mask as coco_mask

from cocoseg.coco.instances import Instances
from cocoseg.coco.rasterize import encode_annotation
from cocoseg.coco.rejections import Reason, Rejection, invalid_annotations
from cocoseg.curation.selection import Selection

logger = logging.getLogger(__name__)

FAR_BEYOND = 0.1
"""If an outline extends beyond its image by more than this fraction of the side, the entry most
likely has another size than the image."""


def log_selection(selection: Selection, crowd_classes: Iterable[str]) -> None:
    """Log a warning for each thing that a user should know before training, and the totals."""
    kept = {image.id: image for image in selection.instances.images}
    by_reason: dict[Reason, list[Rejection]] = defaultdict(list)
    for r in invalid_annotations(selection.rejections):
        by_reason[r.reason].append(r)
    for reason, found in sorted(by_reason.items()):
        example = f"annotation {found[0].annotation_id} of image {found[0].image_id}"
        detail = f" ({found[0].detail})" if found[0].detail else ""
        logger.warning(
            "%d invalid: %s, first %s%s. %s", len(found), reason, example, detail, reason.remedy
        )
    summary = selection.summary()
    if summary["ignored"]["annotations"]:
        logger.warning(
            "%d rejected annotations in %d images: their pixels are ignored, not background",
            summary["ignored"]["annotations"],
            summary["ignored"]["images"],
        )
    unknown = [
        kept[r.image_id].file_name
        for r in selection.rejections
        if r.kind == "annotation" and r.image_id in kept and r.box is None
    ]
    if unknown:
        logger.warning(
            "%d rejected annotations have no known position, so their objects count as background: "
            "in %s",
            len(unknown),
            ", ".join(list(dict.fromkeys(unknown))[:5]),
        )
    if selection.clipped:
        largest = max(selection.clipped, key=lambda clipped: clipped.beyond.pixels)
        logger.info(
            "%d annotations clipped to their images, by up to %.3g pixels",
            len(selection.clipped),
            largest.beyond.pixels,
        )
    far = [c for c in selection.clipped if c.beyond.fraction > FAR_BEYOND]
    if far:
        logger.warning(
            "%d annotations extend beyond their images by more than a tenth of the side, first "
            "annotation %d of %s: most likely the entry has another size than the image",
            len(far),
            far[0].annotation_id,
            kept[far[0].image_id].file_name,
        )
    for name in crowd_classes:
        logger.warning(
            "most annotated pixels of class %s are crowd regions (iscrowd: 1), which are ignored "
            "unless mask.crowd is paint: set it if your labeling tool writes iscrowd for masks",
            name,
        )
    logger.info(
        "%d of %d images kept with %d annotations; rejected images: %s",
        summary["images_kept"],
        summary["images_total"],
        summary["annotations_kept"],
        ", ".join(f"{n} {reason}" for reason, n in summary["images_dropped"].items()) or "none",
    )


def mostly_crowd(instances: Instances, limit: float = 0.5) -> list[str]:
    """The classes of which crowd regions are more than `limit` of the annotated pixels."""
    crowds: Counter[int] = Counter()
    counts: Counter[int] = Counter()
    for annotation in instances.annotations:
        counts[annotation.category_id] += 1
        crowds[annotation.category_id] += annotation.iscrowd
    # Rasterizing takes time; in COCO, crowd regions are rare.
    candidates = {label for label in counts if crowds[label] > 0.05 * counts[label]}
    images = {image.id: image for image in instances.images}
    pixels: Counter[int] = Counter()
    ignored: Counter[int] = Counter()
    for annotation in instances.annotations:
        if annotation.category_id in candidates:
            size = images[annotation.image_id].width, images[annotation.image_id].height
            area = int(coco_mask.area(encode_annotation(annotation, *size)))
            pixels[annotation.category_id] += area
            ignored[annotation.category_id] += area * annotation.iscrowd
    return [c.name for c in instances.categories if ignored[c.id] > limit * pixels[c.id]]
