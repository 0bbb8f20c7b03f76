"""Images to look at: of each class, and what was dropped for each reason.

Photos are shown of selected images only: those of dropped ones were never fetched.
"""

import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from cocoseg.coco.instances import (
    Annotation,
    ImageRecord,
    Instances,
    InvalidSegmentation,
    parse_segmentation,
)
from cocoseg.coco.rasterize import rasterize
from cocoseg.coco.rejections import Reason, Rejection, invalid_annotations
from cocoseg.core.drawing import RGBImage
from cocoseg.core.images import MAX_IMAGE_PIXELS, read_rgb
from cocoseg.core.labels import IGNORE_INDEX, Labels, read_mask
from cocoseg.curation.near_duplicates import NearDuplicate
from cocoseg.reports.data.measure import Measured
from cocoseg.reports.data.thumbnails import (
    THUMBNAIL,
    draw_annotated,
    draw_dropped,
    outlines_in,
)

_PAIRS = 8
_PICTURES = 96
"""About so many photos of classes are shown, one of each class at least."""


@dataclass(frozen=True)
class Shown:
    """A thumbnail, as a JPEG file, of an image; without a picture, the words alone."""

    caption: str
    image: str
    alt: str = ""
    picture: bytes | None = None


@dataclass(frozen=True)
class Inputs:
    """All annotations, what was dropped, the folders of the selected photos and masks, and split's
    list of near-duplicates."""

    source: Instances
    rejections: Sequence[Rejection]
    images: Path
    masks: Path
    near_duplicates: Sequence[NearDuplicate]
    splits: Mapping[str, Sequence[str]]


# --- Contact sheets -------------------------------------------------------------------------------


def contact_sheets(data: Measured, inputs: Inputs) -> list[tuple[str | None, list[Shown]]]:
    """For each class its name and examples; of many classes one each, all on one sheet without a
    name."""
    count = min(6, max(1, _PICTURES // len(data.class_labels)))
    sheets = {
        data.names[label]: [
            _show_photo(data, inputs, example)
            for example in choose_class_examples(data, label)[:count]
        ]
        for label in data.class_labels
    }
    if count > 1:
        return list(sheets.items())
    return [
        (None, [replace(shown, caption=name) for name, found in sheets.items() for shown in found])
    ]


@dataclass(frozen=True)
class ClassExample:
    """An image, by its place, and why it is shown; `annotation` is to be seen enlarged."""

    image: int
    caption: str
    annotation: int | None = None


def choose_class_examples(data: Measured, label: int) -> list[ClassExample]:
    """Examples of a class, those worth most first: an image in which it takes the median share, the
    smallest object, the largest, the most crowded image, and images at the quartiles."""
    objects = data.objects(label)
    if not len(objects):
        return []
    images, inverse = np.unique(data.image_of[objects], return_inverse=True)
    fractions = data.areas[objects] / data.image_areas[data.image_of[objects]]
    taken = np.bincount(inverse, weights=fractions)
    by_fraction = images[np.argsort(taken, kind="stable")]
    instances = np.bincount(inverse)
    largest = objects[np.argmax(fractions)]
    # One without any pixel could not be shown, unless there are only such.
    seen = objects[data.areas[objects] > 0] if data.areas[largest] else objects
    smallest = seen[np.argmin(data.areas[seen])]
    width, height = data.boxes[smallest, 2:]
    wanted = [
        ClassExample(int(by_fraction[len(images) // 2]), "typical"),
        ClassExample(
            int(data.image_of[smallest]),
            f"smallest: {width} x {height} pixels, enlarged",
            int(smallest),
        ),
        ClassExample(int(data.image_of[largest]), f"largest: {fractions.max():.0%} of the photo"),
        ClassExample(
            int(images[np.argmax(instances)]), f"most crowded: {instances.max()} in one photo"
        ),
        ClassExample(int(by_fraction[len(images) // 4]), "typical, rather small"),
        ClassExample(int(by_fraction[len(images) * 3 // 4]), "typical, rather large"),
    ]
    chosen: dict[tuple[int, int | None], ClassExample] = {}
    for example in wanted:
        chosen.setdefault((example.image, example.annotation), example)
    return list(chosen.values())


def _show_photo(data: Measured, inputs: Inputs, example: ClassExample) -> Shown:
    image = data.images[example.image]
    labels = _read_mask(inputs.masks, image)
    box = None
    smaller = THUMBNAIL[1]
    if example.annotation is not None:
        box = _surroundings(data.boxes[example.annotation].tolist(), image)
        # As many pixels of the part as are shown, where the photo has them.
        smaller = THUMBNAIL[1] * min(image.width, image.height) // (box[3] - box[1])
    photo = _read_photo(inputs.images, image, smaller)
    within = labels[box[1] : box[3], box[0] : box[2]] if box else labels
    seen = [data.names[k] for k in np.unique(within).tolist() if 0 < k < IGNORE_INDEX]
    return Shown(
        example.caption,
        image.file_name,
        f"{image.file_name} with the mask over it: {', '.join(seen) or 'nothing'}",
        _jpeg(draw_annotated(photo, labels, box)),
    )


def _surroundings(box: Sequence[int], image: ImageRecord) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a part of an image, shaped as a thumbnail, around a box (left,
    top, width, height); the image's borders may cut it."""
    height = max(48, 3 * box[3], 3 * box[2] * THUMBNAIL[1] // THUMBNAIL[0])
    width = height * THUMBNAIL[0] // THUMBNAIL[1]
    left = max(0, min(box[0] + box[2] // 2 - width // 2, image.width - width))
    top = max(0, min(box[1] + box[3] // 2 - height // 2, image.height - height))
    return left, top, min(left + width, image.width), min(top + height, image.height)


def _read_photo(directory: Path, image: ImageRecord, shorter_side: int) -> RGBImage:
    path = directory / image.file_name
    return read_rgb(path, image.width, image.height, shorter_side=shorter_side)


def _read_mask(directory: Path, image: ImageRecord) -> Labels:
    return read_mask(directory / f"{image.stem}.png")


def _jpeg(picture: RGBImage) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="jpeg", quality=80, subsampling=0)
    return content.getvalue()


def near_duplicates(data: Measured, inputs: Inputs) -> list[tuple[str, list[Shown]]]:
    """Pairs of photos that are nearly the same, each with the splits that they are in: those in two
    splits first, then the most similar ones."""
    split_of = {stem: name for name, stems in inputs.splits.items() for stem in stems}
    found = sorted(
        inputs.near_duplicates,
        key=lambda pair: (split_of[pair.first] == split_of[pair.second], -pair.similarity),
    )
    images = {image.stem: image for image in data.images}
    pairs = []
    for pair in found[:_PAIRS]:
        splits = split_of[pair.first], split_of[pair.second]
        both = " and ".join(dict.fromkeys(splits))
        shown = []
        for stem, split in zip((pair.first, pair.second), splits, strict=True):
            image = images[stem]
            photo = _read_photo(inputs.images, image, THUMBNAIL[1])
            picture = draw_dropped(image.width, image.height, photo=photo)
            alt = f"{image.file_name}, of a pair of near-duplicates"
            shown.append(Shown(f"in {split}", image.file_name, alt, _jpeg(picture)))
        pairs.append((f"{both}, similarity {pair.similarity:.2f}", shown))
    return pairs


# --- What was dropped -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Dropped:
    """A reason for dropping, how often it was one, and what it looks like."""

    reason: str
    count: int
    meaning: str
    examples: Sequence[Shown]


def dropped_images(data: Measured, inputs: Inputs) -> list[Dropped]:
    """Why images were dropped, and the annotations of some of them."""
    rejections = [r for r in inputs.rejections if r.kind == "image"]
    return _dropped(data, inputs, rejections, partial(_show_dropped_image, data, inputs))


def dropped_annotations(data: Measured, inputs: Inputs) -> list[Dropped]:
    """Why annotations were dropped for themselves, and some of them, broken as they are."""
    kept: set[int | None] = {image.id for image in data.images}
    show = partial(_show_dropped_annotation, inputs, kept)
    # Where the photo is at hand, there is more to see.
    return _dropped(data, inputs, invalid_annotations(inputs.rejections), show, preferred=kept)


def _dropped(
    data: Measured,
    inputs: Inputs,
    rejections: Sequence[Rejection],
    show: Callable[[Rejection, ImageRecord | None, Sequence[Annotation]], Shown],
    preferred: Set[int | None] = frozenset(),
) -> list[Dropped]:
    """Each reason with its examples, of the `preferred` images where there are any; the most
    frequent first."""
    by_reason: dict[Reason, list[Rejection]] = defaultdict(list)
    for rejection in rejections:
        by_reason[rejection.reason].append(rejection)
    chosen = {
        reason: _spread([r for r in found if r.image_id in preferred] or found)
        for reason, found in by_reason.items()
    }
    ids = {r.image_id for found in chosen.values() for r in found}
    # Of entries with the same id, the kept one is what is shown.
    images = itertools.chain(inputs.source.images, data.images)
    records: dict[int | None, ImageRecord] = {i.id: i for i in images if i.id in ids}
    annotations: dict[int | None, list[Annotation]] = defaultdict(list)
    for annotation in inputs.source.annotations:
        if annotation.image_id in ids:
            annotations[annotation.image_id].append(annotation)
    return [
        Dropped(
            reason,
            len(found),
            reason.meaning,
            [show(r, records.get(r.image_id), annotations[r.image_id]) for r in chosen[reason]],
        )
        for reason, found in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _show_dropped_image(
    data: Measured,
    inputs: Inputs,
    rejection: Rejection,
    image: ImageRecord | None,
    annotations: Sequence[Annotation],
) -> Shown:
    """The annotations of the image: the selected classes in their colours, others pale."""
    name_of = {category.id: category.name for category in inputs.source.categories}
    names = Counter(name_of.get(a.category_id, "unknown") for a in annotations)
    found = ", ".join(f"{name} ({n})" for name, n in names.most_common(4))
    caption = "; ".join(filter(None, [_shortened(rejection.detail), found or "not annotated"]))
    if image is None or not _is_drawable(image):
        return Shown(caption, _name(image, rejection))
    label_of = {data.names[label]: label for label in data.class_labels}
    valid, outlines = [], []
    for annotation in annotations:
        if _is_valid(annotation, image):
            label = label_of.get(name_of.get(annotation.category_id, ""), IGNORE_INDEX)
            valid.append(msgspec.structs.replace(annotation, category_id=label))
        else:
            outlines += outlines_in(bytes(annotation.segmentation))
    # The largest lie at the bottom, or one on a table would not be seen.
    labels = rasterize(valid, image.width, image.height, overlap="small", crowd="paint")
    picture = draw_dropped(image.width, image.height, labels=labels, outlines=outlines)
    alt = f"Outlines in {_name(image, rejection)}, which was not fetched: {found or 'none'}"
    return Shown(caption, _name(image, rejection), alt, _jpeg(picture))


def _show_dropped_annotation(
    inputs: Inputs,
    kept: Set[int | None],
    rejection: Rejection,
    image: ImageRecord | None,
    of_image: Sequence[Annotation],
) -> Shown:
    """One annotation in red, on its photo where its image is one of those `kept`."""
    name_of = {category.id: category.name for category in inputs.source.categories}
    # Of those with the same id, the last was dropped.
    annotation = next((a for a in reversed(of_image) if a.id == rejection.annotation_id), None)
    name = name_of.get(annotation.category_id, "") if annotation else ""
    number = "" if rejection.annotation_id is None else f"annotation {rejection.annotation_id}"
    caption = ", ".join(filter(None, [number, name, _shortened(rejection.detail)]))
    if image is None or not _is_drawable(image):
        return Shown(caption, _name(image, rejection))
    fetched = image.id in kept
    outlines = outlines_in(bytes(annotation.segmentation)) if annotation else []
    if not fetched and not outlines:
        return Shown(caption, _name(image, rejection))
    photo = _read_photo(inputs.images, image, THUMBNAIL[1]) if fetched else None
    picture = draw_dropped(image.width, image.height, photo=photo, outlines=outlines)
    what = "the dropped outline in red" if outlines else "nothing of the outline can be drawn"
    where = "the photo" if fetched else "an empty image, as the photo was not fetched"
    alt = f"{_name(image, rejection)}: {what}, on {where}"
    return Shown(caption, _name(image, rejection), alt, _jpeg(picture))


def _spread(rejections: Sequence[Rejection]) -> list[Rejection]:
    """The first, the middle and the last."""
    places = {0, len(rejections) // 2, len(rejections) - 1}
    return [rejections[place] for place in sorted(places)]


def _is_drawable(image: ImageRecord) -> bool:
    return image.width > 0 < image.height and image.width * image.height <= MAX_IMAGE_PIXELS


def _is_valid(annotation: Annotation, image: ImageRecord) -> bool:
    try:
        parse_segmentation(annotation.segmentation, image.width, image.height)
    except InvalidSegmentation:
        return False
    return True


def _name(image: ImageRecord | None, rejection: Rejection) -> str:
    if image is None:
        return "an entry without an id" if rejection.image_id is None else f"{rejection.image_id}"
    return _shortened(image.file_name)


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"
