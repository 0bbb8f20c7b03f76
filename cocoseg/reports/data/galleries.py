"""Galleries of the data page: examples of each class, near-duplicates, rejected entries.

Rejected images were never fetched; their annotations are drawn on a dark area.
"""

import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

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
from cocoseg.core.labels import IGNORE_INDEX, read_mask
from cocoseg.curation.near_duplicates import NearDuplicate
from cocoseg.reports.data.measure import DataStatistics
from cocoseg.reports.data.thumbnails import (
    THUMBNAIL,
    draw_annotated,
    draw_dropped,
    outlines_in,
)

_MAX_PAIRS = 8
_EMPTY_THUMBNAILS = 6
_CLASS_THUMBNAILS = 96
"""The approximate number of class examples on the page; each class has at least one."""


@dataclass(frozen=True)
class Thumbnail:
    """An image in a gallery.

    Attributes:
        caption: the text below it.
        image: the file name.
        alt: the alternative text of the drawing.
        jpeg: the drawing as the content of a JPEG file; None if nothing can be drawn.
    """

    caption: str
    image: str
    alt: str = ""
    jpeg: bytes | None = None


@dataclass(frozen=True)
class Inputs:
    """The data that galleries show.

    Attributes:
        source: all images and annotations.
        rejections: the rejected ones.
        images: the directory of the selected images.
        masks: the directory of their masks.
        near_duplicates: the pairs that the stage `near_duplicates` found.
        splits: the stems of each split.
        labels: the label of each category of a selected class, by category id of the source.
    """

    source: Instances
    rejections: Sequence[Rejection]
    images: Path
    masks: Path
    near_duplicates: Sequence[NearDuplicate]
    splits: Mapping[str, Sequence[str]]
    labels: Mapping[int, int]


# --- Examples of each class -----------------------------------------------------------------------


def class_galleries(
    data: DataStatistics, inputs: Inputs
) -> list[tuple[str | None, list[Thumbnail]]]:
    """Draw examples of each class.

    Returns:
        The name and the thumbnails of each class. If each class has only one thumbnail, all
        are in one gallery without a name.
    """
    count = min(6, max(1, _CLASS_THUMBNAILS // len(data.class_labels)))
    galleries = {
        data.names[label]: [
            _draw_class_example(data, inputs, example)
            for example in choose_class_examples(data, label)[:count]
        ]
        for label in data.class_labels
    }
    if count > 1:
        return list(galleries.items())
    return [(None, [replace(t, caption=name) for name, found in galleries.items() for t in found])]


@dataclass(frozen=True)
class ClassExample:
    """An example of a class.

    Attributes:
        image: the index of the image.
        caption: why it is shown.
        annotation: the index of the annotation to crop to; None shows the whole image.
    """

    image: int
    caption: str
    annotation: int | None = None


def choose_class_examples(data: DataStatistics, label: int) -> list[ClassExample]:
    """Choose different examples of a class, most informative first.

    They are the image that the class fills to the median fraction, the smallest object, the largest
    object, the image with the most objects, and the images at the quartiles of the fraction.
    """
    objects = data.objects(label)
    if not len(objects):
        return []
    images, inverse = np.unique(data.image_of[objects], return_inverse=True)
    fractions = data.areas[objects] / data.image_areas[data.image_of[objects]]
    by_fraction = images[np.argsort(np.bincount(inverse, weights=fractions), kind="stable")]
    instances = np.bincount(inverse)
    largest = objects[np.argmax(fractions)]
    # Objects without a pixel are invisible; show one only if all are.
    visible = objects[data.areas[objects] > 0] if data.areas[largest] else objects
    smallest = visible[np.argmin(data.areas[visible])]
    width, height = data.boxes[smallest, 2:]
    largest_fraction = f"largest: {fractions.max():.0%} of the image"
    candidates = [
        ClassExample(int(by_fraction[len(images) // 2]), "median size"),
        ClassExample(
            int(data.image_of[smallest]),
            f"smallest: {width} x {height} pixels{_source_category(data, smallest)}",
            int(smallest),
        ),
        ClassExample(
            int(data.image_of[largest]), f"{largest_fraction}{_source_category(data, largest)}"
        ),
        ClassExample(
            int(images[np.argmax(instances)]), f"most objects: {instances.max()} in this image"
        ),
        ClassExample(int(by_fraction[len(images) // 4]), "lower quartile of size"),
        ClassExample(int(by_fraction[len(images) * 3 // 4]), "upper quartile of size"),
    ]
    chosen: dict[tuple[int, int | None], ClassExample] = {}
    for example in candidates:
        chosen.setdefault((example.image, example.annotation), example)
    return list(chosen.values())


def _source_category(data: DataStatistics, index: int) -> str:
    """The category of an annotation in the source, if its class merges several."""
    name = data.annotations[index].source_category
    return f", {name}" if name else ""


def _draw_class_example(data: DataStatistics, inputs: Inputs, example: ClassExample) -> Thumbnail:
    image = data.images[example.image]
    labels = read_mask(inputs.masks / f"{image.stem}.png")
    box = None
    shorter_side = THUMBNAIL[1]
    if example.annotation is not None:
        box = _surroundings(data.boxes[example.annotation].tolist(), image)
        # Decode the crop at the resolution of the thumbnail, if the image has it.
        shorter_side = THUMBNAIL[1] * min(image.width, image.height) // (box[3] - box[1])
    pixels = _read_image(inputs, image, shorter_side)
    crop = labels[box[1] : box[3], box[0] : box[2]] if box else labels
    visible = [data.names[k] for k in np.unique(crop).tolist() if 0 < k < IGNORE_INDEX]
    return Thumbnail(
        example.caption,
        image.file_name,
        f"{image.file_name} with its mask: {', '.join(visible) or 'background only'}",
        _jpeg(draw_annotated(pixels, labels, box)),
    )


def draw_empty_images(data: DataStatistics, inputs: Inputs) -> list[Thumbnail]:
    """Draw some images without annotations, evenly spread over all of them."""
    split_of = {stem: name for name, stems in inputs.splits.items() for stem in stems}
    empty = data.empty_images()
    chosen = np.linspace(0, len(empty) - 1, min(_EMPTY_THUMBNAILS, len(empty))).round().astype(int)
    thumbnails = []
    for image in [data.images[index] for index in empty[chosen]]:
        drawn = draw_dropped(image.width, image.height, image=_read_image(inputs, image))
        alt = f"{image.file_name}, without objects"
        caption = f"in {split_of[image.stem]}"
        thumbnails.append(Thumbnail(caption, image.file_name, alt, _jpeg(drawn)))
    return thumbnails


def _surroundings(box: Sequence[int], image: ImageRecord) -> tuple[int, int, int, int]:
    """A crop around a box (left, top, width, height): left, top, right, bottom.

    It has the shape of a thumbnail unless the edges of the image cut it.
    """
    height = max(48, 3 * box[3], 3 * box[2] * THUMBNAIL[1] // THUMBNAIL[0])
    width = height * THUMBNAIL[0] // THUMBNAIL[1]
    left = max(0, min(box[0] + box[2] // 2 - width // 2, image.width - width))
    top = max(0, min(box[1] + box[3] // 2 - height // 2, image.height - height))
    return left, top, min(left + width, image.width), min(top + height, image.height)


def _read_image(inputs: Inputs, image: ImageRecord, shorter_side: int = THUMBNAIL[1]) -> RGBImage:
    path = inputs.images / image.file_name
    return read_rgb(path, image.width, image.height, shorter_side=shorter_side)


def _jpeg(pixels: RGBImage) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="jpeg", quality=80, subsampling=0)
    return content.getvalue()


def near_duplicate_galleries(
    data: DataStatistics, inputs: Inputs
) -> list[tuple[str, list[Thumbnail]]]:
    """Draw pairs of near-duplicates.

    Returns:
        A title and both thumbnails of each pair. Pairs in different splits come first, then the
        most similar ones.
    """
    split_of = {stem: name for name, stems in inputs.splits.items() for stem in stems}
    found = sorted(
        inputs.near_duplicates,
        key=lambda pair: (split_of[pair.first] == split_of[pair.second], -pair.similarity),
    )
    images = {image.stem: image for image in data.images}
    galleries = []
    for pair in found[:_MAX_PAIRS]:
        thumbnails = []
        for stem in (pair.first, pair.second):
            image = images[stem]
            drawn = draw_dropped(image.width, image.height, image=_read_image(inputs, image))
            alt = f"{image.file_name}, a near-duplicate"
            thumbnails.append(Thumbnail(f"in {split_of[stem]}", image.file_name, alt, _jpeg(drawn)))
        splits = " and ".join(dict.fromkeys((split_of[pair.first], split_of[pair.second])))
        galleries.append((f"{splits}, similarity {pair.similarity:.2f}", thumbnails))
    return galleries


# --- Rejected images and annotations --------------------------------------------------------------


@dataclass(frozen=True)
class RejectedGallery:
    """A reason for rejection, the number of rejected entries, and some of them."""

    reason: Reason
    count: int
    examples: Sequence[Thumbnail]


class _Draw(Protocol):
    """Draws a rejected entry, with its image if that is known, and the image's annotations."""

    def __call__(
        self,
        rejection: Rejection,
        image: ImageRecord | None,
        annotations: Sequence[Annotation],
    ) -> Thumbnail: ...


def rejected_images(data: DataStatistics, inputs: Inputs) -> list[RejectedGallery]:
    """Draw the annotations of some rejected images, by reason; most frequent first."""
    rejections = [r for r in inputs.rejections if r.kind == "image"]
    return _galleries(data, inputs, rejections, partial(_draw_rejected_image, inputs))


def rejected_annotations(data: DataStatistics, inputs: Inputs) -> list[RejectedGallery]:
    """Draw some invalid annotations, by reason; most frequent first."""
    selected: set[int | None] = {image.id for image in data.images}
    draw = partial(_draw_rejected_annotation, inputs, selected)
    rejections = invalid_annotations(inputs.rejections)
    # Only selected images have been fetched.
    return _galleries(data, inputs, rejections, draw, preferred=selected)


def _galleries(
    data: DataStatistics,
    inputs: Inputs,
    rejections: Sequence[Rejection],
    draw: _Draw,
    preferred: Set[int | None] = frozenset(),
) -> list[RejectedGallery]:
    """Draw examples of each reason, of the `preferred` images if possible."""
    by_reason: dict[Reason, list[Rejection]] = defaultdict(list)
    for rejection in rejections:
        by_reason[rejection.reason].append(rejection)
    chosen = {
        reason: _spread([r for r in found if r.image_id in preferred] or found)
        for reason, found in by_reason.items()
    }
    ids = {r.image_id for found in chosen.values() for r in found}
    # If several entries have the same id, show the selected one.
    images = itertools.chain(inputs.source.images, data.images)
    records: dict[int | None, ImageRecord] = {i.id: i for i in images if i.id in ids}
    annotations: dict[int | None, list[Annotation]] = defaultdict(list)
    for annotation in inputs.source.annotations:
        if annotation.image_id in ids:
            annotations[annotation.image_id].append(annotation)
    return [
        RejectedGallery(
            reason,
            len(found),
            [draw(r, records.get(r.image_id), annotations[r.image_id]) for r in chosen[reason]],
        )
        for reason, found in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _draw_rejected_image(
    inputs: Inputs,
    rejection: Rejection,
    image: ImageRecord | None,
    annotations: Sequence[Annotation],
) -> Thumbnail:
    """Draw annotations of selected classes in their colors, others pale, invalid ones in red."""
    name_of = {category.id: category.name for category in inputs.source.categories}
    counts = Counter(name_of.get(a.category_id, "unknown") for a in annotations)
    classes = ", ".join(f"{name} ({n})" for name, n in counts.most_common(4))
    caption = "; ".join(filter(None, [_shorten(rejection.detail), classes or "no annotations"]))
    name = _name(image, rejection)
    if image is None or not _is_drawable(image):
        return Thumbnail(caption, name)
    valid, outlines = [], []
    for annotation in annotations:
        if _is_valid(annotation, image):
            label = inputs.labels.get(annotation.category_id, IGNORE_INDEX)
            valid.append(msgspec.structs.replace(annotation, category_id=label))
        else:
            outlines += outlines_in(bytes(annotation.segmentation))
    # Small objects on top, so that large ones do not hide them.
    labels = rasterize(valid, image.width, image.height, overlap="small", crowd="paint")
    drawn = draw_dropped(image.width, image.height, labels=labels, outlines=outlines)
    alt = f"Annotations of {name}, which was not fetched: {classes or 'none'}"
    return Thumbnail(caption, name, alt, _jpeg(drawn))


def _draw_rejected_annotation(
    inputs: Inputs,
    selected: Set[int | None],
    rejection: Rejection,
    image: ImageRecord | None,
    annotations: Sequence[Annotation],
) -> Thumbnail:
    """Draw an annotation in red, on its image if that is selected."""
    # Of annotations with the same id, all but the first are rejected.
    annotation = next((a for a in reversed(annotations) if a.id == rejection.annotation_id), None)
    name_of = {category.id: category.name for category in inputs.source.categories}
    category = name_of.get(annotation.category_id, "") if annotation else ""
    number = "" if rejection.annotation_id is None else f"annotation {rejection.annotation_id}"
    caption = ", ".join(filter(None, [number, category, _shorten(rejection.detail)]))
    name = _name(image, rejection)
    outlines = outlines_in(bytes(annotation.segmentation)) if annotation else []
    if image is None or not _is_drawable(image) or not (image.id in selected or outlines):
        return Thumbnail(caption, name)
    pixels = _read_image(inputs, image) if image.id in selected else None
    drawn = draw_dropped(image.width, image.height, image=pixels, outlines=outlines)
    outline = "outline in red" if outlines else "without an outline that can be drawn"
    background = "" if image.id in selected else "; the image was not fetched"
    alt = f"Invalid annotation of {name}, {outline}{background}"
    return Thumbnail(caption, name, alt, _jpeg(drawn))


def _spread(rejections: Sequence[Rejection]) -> list[Rejection]:
    """The first, the middle and the last."""
    indices = {0, len(rejections) // 2, len(rejections) - 1}
    return [rejections[index] for index in sorted(indices)]


def _is_drawable(image: ImageRecord) -> bool:
    return image.width > 0 < image.height and image.width * image.height <= MAX_IMAGE_PIXELS


def _is_valid(annotation: Annotation, image: ImageRecord) -> bool:
    try:
        parse_segmentation(annotation.segmentation, image.width, image.height)
    except InvalidSegmentation:
        return False
    return True


def _name(image: ImageRecord | None, rejection: Rejection) -> str:
    if image is not None:
        return _shorten(image.file_name)
    return "entry without an id" if rejection.image_id is None else f"image {rejection.image_id}"


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"
