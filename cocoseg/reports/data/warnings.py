"""What is odd about a selection, in words: what a person should look at before training."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cocoseg.coco.rejections import Reason
from cocoseg.reports.data.measure import TINY, Measured

FEW_IMAGES = 10
"""A class with fewer images is hardly learned, and its score means little."""

_RARE = 20  # the commonest class has so many times the images of the rarest
_LONG = 3  # a photo's longer side is so many times the shorter
_LISTED = 5


@dataclass(frozen=True)
class DataWarning:
    """One finding; `images` are the names of the files in which it can be seen, in order."""

    text: str
    images: Sequence[str] = ()


def find_data_warnings(
    data: Measured,
    splits: Mapping[str, Mapping[str, Any]],
    invalid: Mapping[Reason, int],
    unusable: Mapping[Reason, int],
) -> list[DataWarning]:
    """All findings, the gravest first.

    `splits` is the content of `metrics/split.json`; `invalid` says how many annotations were
    dropped for what is wrong with themselves, `unusable` how many images for their photos, by
    reason.
    """
    return [
        *_dropped(unusable, "image was", "images were", "for want of a photo that can be used"),
        *_classes(data, splits),
        *_leaks(splits),
        *_twins(data),
        *_masks(data),
        *_dropped(invalid, "annotation was", "annotations were", "as invalid"),
        *_objects(data),
        *_photos(data),
    ]


def _classes(data: Measured, splits: Mapping[str, Mapping[str, Any]]) -> Iterator[DataWarning]:
    shown = data.shows().sum(axis=0)
    images = {data.names[label]: int(shown[label]) for label in data.class_labels}
    if absent := [name for name, n in images.items() if n == 0]:
        yield DataWarning(f"No image shows {_listed(absent)}: asked for, but not in the data")
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


def _leaks(splits: Mapping[str, Mapping[str, Any]]) -> Iterator[DataWarning]:
    if across := splits.get("near_duplicates", {}).get("across_splits", 0):
        text = _count(across, "pair of photos is", "pairs of photos are")
        yield DataWarning(f"{text} nearly the same in two splits, which makes scores too good")


def _twins(data: Measured) -> Iterator[DataWarning]:
    for same, what in ((False, "under two classes"), (True, "twice under the same class")):
        pairs = [p for p in data.twins if (data.labels[p[0]] == data.labels[p[1]]) == same]
        if pairs:
            text = f"{_count(len(pairs), 'object is', 'objects are')} annotated {what}, "
            yield _of_objects(data, text + "with the very same pixels", [p[1] for p in pairs])


def _masks(data: Measured) -> Iterator[DataWarning]:
    ignored = np.flatnonzero(data.ignored_fractions() > 0.5)
    if len(ignored):
        text = f"{_count(len(ignored), 'image is', 'images are')} more than half void"
        yield _of_images(data, f"{text}: most of their pixels are not learned from", ignored)
    hidden = np.flatnonzero(data.hidden().any(axis=1))
    if len(hidden):
        text = f"In {_count(len(hidden), 'image', 'images')} the mask shows nothing of a class"
        yield _of_images(data, f"{text} that is annotated there: others lie over it", hidden)
    overlap = data.figures()["fractions"]["overlap"]
    if overlap > 0.1:
        yield _of_images(
            data,
            f"{overlap:.0%} of the annotated pixels are annotated more than once: mask.overlap "
            "decides whose they are",
            np.argsort(-data.overlaps, kind="stable"),
        )


def _dropped(
    reasons: Mapping[Reason, int], one: str, several: str, why: str
) -> Iterator[DataWarning]:
    if reasons:
        most = sorted(reasons, key=lambda reason: (-reasons[reason], reason))
        shown = [f"{reasons[reason]:,} {reason.replace('_', ' ')}" for reason in most]
        text = _count(sum(reasons.values()), one, several)
        yield DataWarning(f"{text} dropped {why}: {_listed(shown)}")


def _objects(data: Measured) -> Iterator[DataWarning]:
    objects = data.objects()
    areas = data.areas[objects]
    by_area = objects[np.argsort(areas, kind="stable")]
    if tiny := int((areas < TINY).sum()):
        text = f"{_count(tiny, 'annotation is', 'annotations are')} smaller than {TINY} pixels"
        yield _of_objects(data, text, by_area[:tiny])
    fractions = data.areas / data.image_areas[data.image_of]
    filling = objects[fractions[objects] > 0.95]
    if len(filling):
        text = f"{_count(len(filling), 'annotation fills', 'annotations fill')} more than 95% of"
        yield _of_objects(data, f"{text} the image", filling)
    rectangles = data.rectangles()
    if len(rectangles):
        whole = f"of the {len(objects):,} annotations"
        text = _count(
            len(rectangles),
            f"{whole} is a plain rectangle: a box rather than an outline",
            f"{whole} are plain rectangles: boxes rather than outlines",
        )
        yield _of_objects(data, text, rectangles)


def _photos(data: Measured) -> Iterator[DataWarning]:
    sides = np.array([(image.width, image.height) for image in data.images])
    longer, shorter = sides.max(axis=1), sides.min(axis=1)
    long = np.flatnonzero(longer > _LONG * shorter)
    if len(long):
        text = f"{_count(len(long), 'photo is', 'photos are')} more than {_LONG} times as long"
        yield _of_images(data, f"{text} as wide", long)
    usual = float(np.median(longer))
    for odd, what in ((longer < usual / 2, "half"), (longer > usual * 2, "twice")):
        found = np.flatnonzero(odd)
        if len(found):
            size = "smaller" if what == "half" else "larger"
            text = f"{_count(len(found), 'photo is', 'photos are')} {size} than {what} the usual"
            yield _of_images(data, f"{text} {usual:.0f} pixels of the longer side", found)
    if len(objects := data.objects()) and data.areas[objects].sum() < 0.01 * data.pixels.sum():
        yield DataWarning(
            "Objects take less than 1% of all pixels: nearly everything is background"
        )


def _of_objects(data: Measured, text: str, objects: Iterable[int]) -> DataWarning:
    return _of_images(data, text, (data.image_of[place] for place in objects))


def _of_images(data: Measured, text: str, images: Iterable[int]) -> DataWarning:
    return DataWarning(text, list(dict.fromkeys(data.images[place].file_name for place in images)))


def _count(number: int, one: str, several: str) -> str:
    """`1 annotation is`, `1,200 annotations are`."""
    return f"{number:,} {one if number == 1 else several}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
