"""Data warnings: findings to check before training."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cocoseg.coco.rejections import UNUSABLE_IMAGES, Reason, Rejection, invalid_annotations
from cocoseg.reports.data.measure import TINY, DataStatistics

FEW_IMAGES = 10
"""A class with fewer images is hardly learned, and its score is unreliable."""

_RARE = 20  # ratio of the images of the most frequent class to those of the rarest
_LONG = 3  # ratio of the longer side of an image to the shorter
_LISTED = 5


@dataclass(frozen=True)
class DataWarning:
    """A finding; `images` are the file names of the images that show it, in order."""

    text: str
    images: Sequence[str] = ()


def find_data_warnings(
    data: DataStatistics, splits: Mapping[str, Any], rejections: Sequence[Rejection]
) -> list[DataWarning]:
    """Find everything unusual in a selection, most severe first.

    Args:
        data: the statistics of the selection.
        splits: the content of `metrics/split.json`.
        rejections: the rejected images and annotations.
    """
    unusable = Counter(
        r.reason for r in rejections if r.kind == "image" and r.reason in UNUSABLE_IMAGES
    )
    invalid = Counter(r.reason for r in invalid_annotations(rejections))
    return [
        *_unlearnable(data),
        *_rejected(unusable, "image was", "images were", "as unusable"),
        *_classes(data, splits),
        *_leaks(splits),
        *_duplicates(data),
        *_masks(data),
        *_rejected(invalid, "annotation was", "annotations were", "as invalid"),
        *_objects(data),
        *_images(data),
    ]


def _unlearnable(data: DataStatistics) -> Iterator[DataWarning]:
    """Classes that the masks show hardly or not at all, although they are annotated."""
    annotated = np.bincount(data.labels, weights=data.areas, minlength=len(data.names))
    crowds = np.bincount(data.labels, weights=data.areas * data.crowd, minlength=len(data.names))
    painted = data.pixels[:, :-1].sum(axis=0)
    if not painted[1:].any():
        yield DataWarning("No mask shows a class: a model cannot learn anything from them")
    elif lost := [label for label in data.class_labels if annotated[label] and not painted[label]]:
        names = [data.names[label] for label in lost]
        yield DataWarning(f"No mask shows {_listed(names)}, although there are annotations")
    # With mask.crowd: paint, the masks show the crowd regions.
    mostly = (crowds > annotated / 2) & (painted < annotated / 2)
    if mostly.any():
        names = [data.names[label] for label in data.class_labels if mostly[label]]
        text = (
            f"Most annotated pixels of {_listed(names)} are crowd regions (iscrowd: 1), which are "
            "not painted: set mask.crowd to paint if your labeling tool writes iscrowd for masks"
        )
        yield _of_objects(data, text, np.flatnonzero(data.crowd & mostly[data.labels]))


def _classes(data: DataStatistics, splits: Mapping[str, Any]) -> Iterator[DataWarning]:
    shown = data.shows().sum(axis=0)
    images = {data.names[label]: int(shown[label]) for label in data.class_labels}
    if absent := [name for name, n in images.items() if n == 0]:
        yield DataWarning(f"No image shows {_listed(absent)}")
    for split, purpose in (("train", "learned"), ("val", "validated"), ("test", "scored")):
        counts = splits[split]["classes"]
        missing = [name for name, n in images.items() if n and not counts.get(name)]
        if missing and splits[split]["images"]:
            yield DataWarning(
                f"{split} has no image of {_listed(missing)}, which cannot be {purpose}"
            )
    few = [f"{name} ({n})" for name, n in images.items() if 0 < n < FEW_IMAGES]
    if few:
        text = f"{_count(len(few), 'class has', 'classes have')} fewer than {FEW_IMAGES} images"
        yield DataWarning(f"{text}: {_listed(few)}")
    present = {name: n for name, n in images.items() if n}
    rarest, commonest = min(present, key=present.__getitem__), max(present, key=present.__getitem__)
    if present[commonest] >= _RARE * present[rarest]:
        times = present[commonest] // present[rarest]
        yield DataWarning(f"{commonest} is in {times} times as many images as {rarest}")


def _leaks(splits: Mapping[str, Any]) -> Iterator[DataWarning]:
    if across := splits.get("near_duplicates", {}).get("across_splits", 0):
        text = _count(across, "pair of near-duplicates is", "pairs of near-duplicates are")
        yield DataWarning(f"{text} in different splits, which inflates the scores")


def _duplicates(data: DataStatistics) -> Iterator[DataWarning]:
    for same, classes in ((False, "two classes"), (True, "the same class")):
        pairs = [p for p in data.duplicates if (data.labels[p[0]] == data.labels[p[1]]) == same]
        if pairs:
            text = f"{_count(len(pairs), 'object is', 'objects are')} annotated twice"
            second = [pair[1] for pair in pairs]
            yield _of_objects(data, f"{text} with identical pixels, under {classes}", second)


def _masks(data: DataStatistics) -> Iterator[DataWarning]:
    ignored = np.flatnonzero(data.ignored_fractions() > 0.5)
    if len(ignored):
        text = f"{_count(len(ignored), 'image has', 'images have')} more than half of the pixels"
        yield _of_images(data, f"{text} ignored", ignored)
    hidden = np.flatnonzero(data.hidden().any(axis=1))
    if len(hidden):
        text = f"{_count(len(hidden), 'image has', 'images have')} objects of a class that the mask"
        yield _of_images(data, f"{text} does not show, because other objects cover them", hidden)
    overlap = data.overlap_fraction()
    if overlap > 0.1:
        text = f"{overlap:.0%} of the annotated pixels are annotated more than once: mask.overlap"
        order = np.argsort(-data.overlaps, kind="stable")
        yield _of_images(data, f"{text} decides which class they get", order)


def _rejected(
    reasons: Mapping[Reason, int], one: str, several: str, why: str
) -> Iterator[DataWarning]:
    if reasons:
        most = sorted(reasons, key=lambda reason: (-reasons[reason], reason))
        shown = [f"{reasons[reason]:,} {reason.replace('_', ' ')}" for reason in most]
        text = _count(sum(reasons.values()), one, several)
        yield DataWarning(f"{text} dropped {why}: {_listed(shown)}")


def _objects(data: DataStatistics) -> Iterator[DataWarning]:
    objects = data.objects()
    areas = data.areas[objects]
    by_area = objects[np.argsort(areas, kind="stable")]
    if tiny := int((areas < TINY).sum()):
        text = f"{_count(tiny, 'annotation has', 'annotations have')} fewer than {TINY} pixels"
        yield _of_objects(data, text, by_area[:tiny])
    fractions = data.areas / data.image_areas[data.image_of]
    filling = objects[fractions[objects] > 0.95]
    if len(filling):
        text = f"{_count(len(filling), 'annotation covers', 'annotations cover')} more than 95% of"
        yield _of_objects(data, f"{text} the image", filling)
    rectangles = data.rectangles()
    if len(rectangles):
        total = f"of {_count(len(objects), 'annotation', 'annotations')}"
        text = _count(
            len(rectangles),
            f"{total} is a plain rectangle: a box, not an outline",
            f"{total} are plain rectangles: boxes, not outlines",
        )
        yield _of_objects(data, text, rectangles)


def _images(data: DataStatistics) -> Iterator[DataWarning]:
    sides = np.array([(image.width, image.height) for image in data.images])
    longer, shorter = sides.max(axis=1), sides.min(axis=1)
    elongated = np.flatnonzero(longer > _LONG * shorter)
    if len(elongated):
        text = f"{_count(len(elongated), 'image is', 'images are')} more than {_LONG} times as long"
        yield _of_images(data, f"{text} as wide", elongated)
    median = float(np.median(longer))
    for unusual, limit in (
        (longer < median / 2, "less than half"),
        (longer > median * 2, "more than twice"),
    ):
        found = np.flatnonzero(unusual)
        if len(found):
            text = (
                f"The longer side of {_count(len(found), 'image', 'images')} is {limit} the median"
            )
            yield _of_images(data, f"{text} of {median:.0f} pixels", found)
    if len(objects := data.objects()) and data.areas[objects].sum() < 0.01 * data.pixels.sum():
        yield DataWarning("Objects cover less than 1% of all pixels")


def _of_objects(data: DataStatistics, text: str, objects: Iterable[int]) -> DataWarning:
    return _of_images(data, text, (data.image_of[index] for index in objects))


def _of_images(data: DataStatistics, text: str, images: Iterable[int]) -> DataWarning:
    return DataWarning(text, list(dict.fromkeys(data.images[index].file_name for index in images)))


def _count(number: int, one: str, several: str) -> str:
    """Format a count, such as `1 annotation is` or `1,200 annotations are`."""
    return f"{number:,} {one if number == 1 else several}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
