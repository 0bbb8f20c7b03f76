"""Selection of the images and annotations to train on from a COCO instances file.

selection = select(read_instances(path), ["person", "car"], max_instances=10, max_images=8000,
                   prefer="rare", seed=0)
"""

import contextlib
import gc
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypedDict

import msgspec
from pycocotools import mask as coco_mask

from cocoseg.coco.bounds import Box, Overshoot, parse_json, possible_box
from cocoseg.coco.instances import (
    Annotation,
    Category,
    ImageRecord,
    Instances,
    InvalidSegmentation,
    ReadResult,
    images_by_class,
    parse_and_measure,
    rarest_class_by_image,
)
from cocoseg.coco.rasterize import encode_annotation, encode_region
from cocoseg.coco.rejections import Defect, Reason, Rejection, invalid_annotations
from cocoseg.core.errors import UserError
from cocoseg.core.files import MAX_NAME_BYTES, atomic_file
from cocoseg.core.images import MAX_IMAGE_PIXELS
from cocoseg.core.seeding import sort_key
from cocoseg.curation.classes import ClassSpec, categories_of_classes
from cocoseg.curation.exclusions import Exclusion

Prefer = Literal["rare", "random", "first"]

_SAFE_NAME = re.compile(r'(?!\.)[^/\\:*?"<>|]+(?<![. ])')


class ClassCounts(TypedDict):
    """Number of instances of a class, and number of images that show the class."""

    images: int
    instances: int


class ClippedCounts(TypedDict):
    """Number of clipped annotations, and the largest distance beyond an image in pixels."""

    annotations: int
    largest: float


class IgnoredCounts(TypedDict):
    """Number of rejected annotations whose pixels are ignored, and number of their images."""

    annotations: int
    images: int


class SelectionSummary(TypedDict):
    """The content of `metrics/filter.json`.

    Dropped entries are counted by reason. Annotations of other classes are not counted.
    """

    images_total: int
    images_kept: int
    images_empty: int
    images_dropped: dict[str, int]
    annotations_total: int
    annotations_kept: int
    annotations_dropped: dict[str, int]
    clipped: ClippedCounts
    ignored: IgnoredCounts
    classes: dict[str, ClassCounts]


@dataclass
class Clipped:
    """An annotation that extends beyond its image and is clipped."""

    image_id: int
    annotation_id: int
    beyond: Overshoot


@dataclass
class Selection:
    """The result of `select`.

    Attributes:
        instances: selected images by id, and their annotations: by image, then in file order.
            Category ids are the labels 1…N in the order of the selected classes.
        rejections: one for each other image, and for each other annotation of a selected class.
        clipped: selected annotations that extend beyond their image.
    """

    instances: Instances
    rejections: list[Rejection]
    clipped: list[Clipped]

    def summary(self) -> SelectionSummary:
        """Count selected and rejected entries."""
        kept = self.instances
        images: Counter[str] = Counter(r.reason for r in self.rejections if r.kind == "image")
        annotations: Counter[str] = Counter(
            r.reason for r in self.rejections if r.kind == "annotation"
        )
        images_of = images_by_class(kept.annotations)
        instances_of = Counter(a.category_id for a in kept.annotations)
        with_objects = {a.image_id for a in kept.annotations}
        return {
            "images_total": len(kept.images) + images.total(),
            "images_kept": len(kept.images),
            "images_empty": len(kept.images) - len(with_objects),
            "images_dropped": dict(sorted(images.items())),
            "annotations_total": len(kept.annotations) + annotations.total(),
            "annotations_kept": len(kept.annotations),
            "annotations_dropped": dict(sorted(annotations.items())),
            "clipped": {
                "annotations": len(self.clipped),
                "largest": round(max((c.beyond.pixels for c in self.clipped), default=0), 3),
            },
            "ignored": {
                "annotations": sum(len(image.ignored) for image in kept.images),
                "images": sum(bool(image.ignored) for image in kept.images),
            },
            "classes": {
                c.name: {"images": len(images_of.get(c.id, ())), "instances": instances_of[c.id]}
                for c in kept.categories
            },
        }


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pause the collector, which would spend a fifth of the time on lists that only grow."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_no_garbage_collection()
def select(
    read: ReadResult,
    classes: Sequence[ClassSpec] | Literal["all"],
    *,
    max_instances: int,
    max_images: int,
    prefer: Prefer,
    seed: int,
    exclude: Set[Exclusion] = frozenset(),
    out_of_bounds: Literal["drop", "clip"] = "drop",
    empty_fraction: float = 0.0,
) -> Selection:
    """Select images and annotations.

    An annotation is selected if its class is selected, it is valid, and it is not excluded. An
    image is selected if it is usable, is not excluded, and has 1 to `max_instances` such
    annotations, or none of a selected class, up to `empty_fraction`. Entries that are unusable or
    invalid keep that reason even if they are excluded. The boxes of rejected annotations in
    selected images become `ImageRecord.ignored`.

    Args:
        read: entries and rejections of an instances file.
        classes: classes in the order of their labels, as in `categories_of_classes`.
        max_instances: maximum number of annotations of an image; a crowd region counts as one.
        max_images: maximum number of images.
        prefer: which images stay if there are more. `rare`: images with the rarest class first,
            otherwise in random order. `random`: a random sample. `first`: the first in file order.
        seed: of the random order.
        exclude: ids of images and annotations, as `read_exclusions` returns them.
        out_of_bounds: whether annotations that extend beyond their image are dropped or clipped.
        empty_fraction: maximum fraction of the selected images without an annotation of a selected
            class.

    Returns:
        The selection, and a rejection for every image and annotation that is not selected.

    Raises:
        NothingSelected: no image with an annotation is left.
        UserError: a class cannot be used.
    """
    members = categories_of_classes(read.instances, classes)
    labels = {id: label for label, ids in enumerate(members.values(), start=1) for id in ids}
    merged = {id for ids in members.values() if len(ids) > 1 for id in ids}
    source_names = {c.id: c.name for c in read.instances.categories if c.id in merged}
    # Other classes are ignored, their unreadable annotations as well.
    other = {c.id for c in read.instances.categories} - labels.keys()
    rejections = [r for r in read.rejections if r.category_id not in other]
    images = _usable_images(read.instances.images, rejections)
    found = _Annotations(labels, source_names, images, exclude, out_of_bounds == "clip")
    for annotation in read.instances.annotations:
        if annotation.category_id not in other:
            found.add(annotation)
    rejections += found.rejections
    dropped = _dropped_images(images, found.valid, rejections, exclude, max_instances)
    qualifying = {i: found.valid[i] for i in images if i not in dropped and i in found.valid}
    empty = [i for i in images if i not in dropped and i not in found.valid]
    with_objects, without = _numbers(len(qualifying), len(empty), max_images, empty_fraction)
    for image_id in _by_preference(qualifying, prefer, seed)[with_objects:]:
        dropped[image_id] = Defect(Reason.OVER_MAX_IMAGES)
    is_wanted = empty_fraction > 0 and qualifying
    too_many = Reason.OVER_EMPTY_FRACTION if is_wanted else Reason.NO_SELECTED_CLASS
    for image_id in _drawn(empty, prefer, seed)[without:]:
        dropped[image_id] = Defect(too_many)
    for image_id, (reason, detail) in dropped.items():
        rejections.append(Rejection("image", image_id, None, reason, detail))
        for annotation in found.valid.pop(image_id, ()):
            rejections.append(Rejection("annotation", image_id, annotation.id, reason))
    if not found.valid:
        raise NothingSelected(rejections)
    ignored = _ignored_boxes(rejections, images, found.valid, dropped.keys())
    kept = sorted(images.keys() - dropped.keys())
    instances = Instances(
        [
            msgspec.structs.replace(images[i], ignored=ignored[i]) if i in ignored else images[i]
            for i in kept
        ],
        [annotation for i in kept for annotation in found.valid.get(i, ())],
        [Category(label, name) for label, name in enumerate(members, start=1)],
    )
    clipped = [clip for clip in found.clipped if clip.image_id not in dropped]
    return Selection(instances, rejections, clipped)


class NothingSelected(UserError):
    """No image is left.

    Attributes:
        rejections: one for each image and annotation.
    """

    def __init__(self, rejections: Sequence[Rejection]) -> None:
        self.rejections = rejections
        images = Counter(r.reason for r in rejections if r.kind == "image")
        message = f"no images left after filtering {images.total():,}: {_counted(images)}"
        annotations = Counter(r.reason for r in invalid_annotations(rejections))
        # Annotations of images that are themselves unusable explain nothing more.
        if annotations:
            commonest = annotations.most_common(1)[0][0]
            message += f"; annotations: {_counted(annotations)}. {commonest.meaning}"
        else:
            commonest = max(images, key=images.__getitem__, default=Reason.NO_SELECTED_CLASS)
            details = [r.detail for r in rejections if r.reason is commonest and r.detail]
            if details:
                message += f" (first: {ascii(details[0][:200])[1:-1]})"
            message += "."
        super().__init__(f"{message} {commonest.remedy} See data/rejected.csv.")


def _counted(reasons: Counter[Reason]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())


def _usable_images(
    images: Iterable[ImageRecord], rejections: list[Rejection]
) -> dict[int, ImageRecord]:
    """Map usable images by id, and append the others to `rejections`."""
    usable: dict[int, ImageRecord] = {}
    stems: set[str] = set()
    for image in images:
        defect = _image_defect(image)
        # Masks are named after the stem, and some file systems ignore case.
        stem = image.stem.casefold()
        if defect is None and image.id in usable:
            defect = Defect(Reason.DUPLICATE_IMAGE, "id")
        if defect is None and stem in stems:
            defect = Defect(Reason.DUPLICATE_IMAGE, f"file name {image.file_name}")
        if defect:
            rejections.append(Rejection("image", image.id, None, *defect))
        else:
            usable[image.id] = image
            stems.add(stem)
    return usable


def _image_defect(image: ImageRecord) -> Defect | None:
    name = image.file_name
    if image.rejected:
        return image.rejected
    if image.width < 1 or image.height < 1:
        return Defect(Reason.MALFORMED_IMAGE, f"{image.width} x {image.height} pixels")
    if image.width * image.height > MAX_IMAGE_PIXELS:
        return Defect(Reason.IMAGE_TOO_LARGE, f"{image.width} x {image.height} pixels")
    if (
        not name.isprintable()
        or not _SAFE_NAME.fullmatch(name)
        or len(name.encode()) > MAX_NAME_BYTES
    ):
        return Defect(Reason.UNSAFE_FILE_NAME, ascii(name[:80]))
    return None


@dataclass
class _Annotations:
    """Annotations of selected and unknown classes: valid ones by image id, rejected and clipped."""

    labels: Mapping[int, int]
    source_names: Mapping[int, str]
    """The category names of classes that merge several categories."""
    images: Mapping[int, ImageRecord]
    exclude: Set[Exclusion]
    clip: bool
    valid: dict[int, list[Annotation]] = field(default_factory=lambda: defaultdict(list))
    rejections: list[Rejection] = field(default_factory=list)
    clipped: list[Clipped] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)

    def add(self, annotation: Annotation) -> None:
        """Sort in one annotation."""
        image = self.images.get(annotation.image_id)
        defect = self._defect(annotation, image)
        self._seen.add(annotation.id)
        if defect is None:
            label = self.labels[annotation.category_id]
            name = self.source_names.get(annotation.category_id, msgspec.UNSET)
            self.valid[annotation.image_id].append(
                msgspec.structs.replace(annotation, category_id=label, source_category=name)
            )
            return
        box = None
        if image is not None:
            box = _bounds(annotation, image)
        self.rejections.append(
            Rejection("annotation", annotation.image_id, annotation.id, *defect, box=box)
        )

    def _defect(self, annotation: Annotation, image: ImageRecord | None) -> Defect | None:
        if image is None:
            return Defect(Reason.UNKNOWN_IMAGE)
        if annotation.id in self._seen:
            return Defect(Reason.DUPLICATE_ANNOTATION)
        if annotation.rejected:
            return annotation.rejected
        if annotation.category_id not in self.labels:
            return Defect(Reason.UNKNOWN_CATEGORY, f"category_id {annotation.category_id}")
        try:
            segmentation, beyond = parse_and_measure(
                annotation.segmentation, image.width, image.height
            )
        except InvalidSegmentation as error:
            return Defect(error.reason, error.detail)
        if (annotation.image_id, annotation.id) in self.exclude:
            return Defect(Reason.EXCLUDED)
        if beyond:
            if not self.clip:
                return Defect(Reason.OUT_OF_BOUNDS, f"by {beyond.pixels:.3g} pixels")
            if not coco_mask.area(encode_region(segmentation, image.width, image.height)):
                return Defect(Reason.OUT_OF_BOUNDS, "no pixel is within")
            self.clipped.append(Clipped(image.id, annotation.id, beyond))
        return None


def _dropped_images(
    images: Iterable[int],
    valid: Mapping[int, Sequence[Annotation]],
    rejections: Sequence[Rejection],
    exclude: Set[Exclusion],
    max_instances: int,
) -> dict[int, Defect]:
    """The images that are rejected for what is annotated in them."""
    annotated = valid.keys() | {r.image_id for r in rejections if r.kind == "annotation"}
    emptied = {r.image_id for r in rejections if r.reason is Reason.EXCLUDED} - valid.keys()
    dropped: dict[int, Defect] = {}
    for image_id in images:
        count = len(valid.get(image_id, ()))
        if (image_id, None) in exclude or image_id in emptied:
            dropped[image_id] = Defect(Reason.EXCLUDED)
        elif count == 0 and image_id in annotated:
            dropped[image_id] = Defect(Reason.NO_VALID_ANNOTATION)
        elif count > max_instances:
            dropped[image_id] = Defect(Reason.TOO_MANY_INSTANCES, f"{count} instances")
    return dropped


def _numbers(
    with_objects: int, without: int, max_images: int, empty_fraction: float
) -> tuple[int, int]:
    """How many images with and without objects to keep of those available.

    Images without are at most `empty_fraction` of all that are kept; where `max_images` is reached,
    also at most their fraction of those available. None are kept if no image has objects.
    """
    if not with_objects:
        return 0, 0
    fraction = Fraction(str(empty_fraction))
    total = min(max_images, with_objects + without)
    most = min(math.floor(fraction * total), without)
    if with_objects + without > max_images:
        proportional = round(Fraction(max_images * without, with_objects + without))
        most = min(most, proportional, max_images - 1)
    kept = min(with_objects, max_images - most)
    if fraction < 1:
        most = min(most, math.floor(kept * fraction / (1 - fraction)))
        kept = min(with_objects, max_images - most)
    return kept, most


def _ignored_boxes(
    rejections: Iterable[Rejection],
    images: Mapping[int, ImageRecord],
    valid: Mapping[int, Sequence[Annotation]],
    dropped: Set[int],
) -> dict[int, list[Box]]:
    """The boxes of rejected annotations in kept images, by image id.

    A box that bounds a valid annotation shows the same object and is left out. Label Studio writes
    a box beside each polygon that it imported.
    """
    boxes: dict[int, list[Box]] = defaultdict(list)
    for r in rejections:
        image_id = r.image_id
        if image_id is None or image_id not in images or image_id in dropped:
            continue
        if r.kind == "annotation" and r.box:
            image = images[image_id]
            left, top, right, bottom = r.box
            box = left, top, min(right, image.width), min(bottom, image.height)
            if box[0] < box[2] and box[1] < box[3]:
                boxes[image_id].append(box)
    ignored: dict[int, list[Box]] = {}
    for image_id, found in boxes.items():
        outlined = [_bounds(a, images[image_id]) for a in valid.get(image_id, ())]
        if others := [box for box in found if not any(_are_close(box, o) for o in outlined if o)]:
            ignored[image_id] = others
    return ignored


def _bounds(annotation: Annotation, image: ImageRecord) -> Box | None:
    size = image.width, image.height
    segmentation, bbox = map(parse_json, (annotation.segmentation, annotation.bbox))
    box = possible_box(segmentation, bbox, *size)
    if box is None:
        with contextlib.suppress(InvalidSegmentation):
            encoded = encode_annotation(annotation, *size)
            left, top, width, height = coco_mask.toBbox(encoded).astype(int).tolist()
            return left, top, left + width, top + height
    return box


def _are_close(box: Box, other: Box) -> bool:
    """Whether no side differs by more than a pixel, the error of rounding."""
    return all(abs(a - b) <= 1 for a, b in zip(box, other, strict=True))


def _by_preference(
    annotations: Mapping[int, Sequence[Annotation]],
    prefer: Prefer,
    seed: int,
) -> list[int]:
    """The image ids that are the keys of `annotations`, those to keep first."""
    drawn = _drawn(annotations, prefer, seed)
    if prefer != "rare":
        return drawn
    images_of = images_by_class(itertools.chain.from_iterable(annotations.values()))
    rarest = rarest_class_by_image(images_of)
    return sorted(drawn, key=lambda image_id: (len(images_of[rarest[image_id]]), rarest[image_id]))


def _drawn(images: Iterable[int], prefer: Prefer, seed: int) -> list[int]:
    """Image ids in random order, or as in the file."""
    if prefer == "first":
        return list(images)
    return sorted(images, key=lambda image_id: sort_key(seed, "filter", image_id))


def write_selection(path: Path, instances: Instances) -> None:
    """Write a selection as a COCO instances file, which `read_instances` reads.

    For other readers, each annotation gets the `area` and `bbox` of its rasterized pixels.
    """
    images = {image.id: image for image in instances.images}
    painted = [_painted(a, images[a.image_id]) for a in instances.annotations]
    with atomic_file(path) as temporary:
        temporary.write_bytes(
            msgspec.json.encode(msgspec.structs.replace(instances, annotations=painted)) + b"\n"
        )


class _PaintedAnnotation(Annotation):
    area: int = 0


def _painted(annotation: Annotation, image: ImageRecord) -> _PaintedAnnotation:
    encoded = encode_annotation(annotation, image.width, image.height)
    box = coco_mask.toBbox(encoded).astype(int).tolist()
    return _PaintedAnnotation(
        annotation.id,
        annotation.image_id,
        annotation.category_id,
        annotation.segmentation,
        msgspec.Raw(msgspec.json.encode(box)),
        annotation.iscrowd,
        source_category=annotation.source_category,
        area=int(coco_mask.area(encoded)),
    )
