"""Selection of the images and annotations to train on from a COCO instances file.

selection = select(read_instances(path), ["person", "car"], max_instances=10, max_images=8000,
                   prefer="rare", seed=0)
"""

import contextlib
import csv
import gc
import itertools
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import msgspec

from cocoseg.coco.instances import (
    Annotation,
    Category,
    ImageRecord,
    Instances,
    InvalidSegmentation,
    ReadResult,
    images_by_class,
    parse_segmentation,
    rarest_class_by_image,
)
from cocoseg.coco.rejections import Defect, Reason, Rejection, invalid_annotations
from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file, flat_name
from cocoseg.core.images import MAX_IMAGE_PIXELS
from cocoseg.core.labels import IGNORE_INDEX
from cocoseg.core.seeding import sort_key

logger = logging.getLogger(__name__)

Exclusion = tuple[int, int | None]
"""The id of an image, and the id of one of its annotations or None for the whole image."""

Prefer = Literal["rare", "random", "first"]

_SAFE_NAME = re.compile(r'(?!\.)[^/\\:*?"<>|]+(?<![. ])')


class ClassCounts(TypedDict):
    """Number of instances of a class, and number of images that show the class."""

    images: int
    instances: int


class SelectionSummary(TypedDict):
    """The content of `metrics/filter.json`.

    Dropped entries are counted by reason. Annotations of other classes are not counted.
    """

    images_total: int
    images_kept: int
    images_dropped: dict[str, int]
    annotations_total: int
    annotations_kept: int
    annotations_dropped: dict[str, int]
    classes: dict[str, ClassCounts]


@dataclass
class Selection:
    """The result of `select`.

    Attributes:
        instances: Selected images by id, and their annotations: by image, then in file order.
            Category ids are the labels 1…N in the order of the selected classes.
        rejections: One for each other image, and for each other annotation of a selected class.
    """

    instances: Instances
    rejections: list[Rejection]

    def summary(self) -> SelectionSummary:
        """Count selected and rejected entries."""
        kept = self.instances
        images: Counter[str] = Counter(r.reason for r in self.rejections if r.kind == "image")
        annotations: Counter[str] = Counter(
            r.reason for r in self.rejections if r.kind == "annotation"
        )
        images_of = images_by_class(kept.annotations)
        instances_of = Counter(a.category_id for a in kept.annotations)
        return {
            "images_total": len(kept.images) + images.total(),
            "images_kept": len(kept.images),
            "images_dropped": dict(sorted(images.items())),
            "annotations_total": len(kept.annotations) + annotations.total(),
            "annotations_kept": len(kept.annotations),
            "annotations_dropped": dict(sorted(annotations.items())),
            "classes": {
                c.name: {"images": len(images_of.get(c.id, ())), "instances": instances_of[c.id]}
                for c in kept.categories
            },
        }


def warn_of_unknown(read: ReadResult, exclude: Set[Exclusion], path: Path) -> None:
    """Log a warning if entries of the exclusion file `path` do not exist in the annotations."""
    known: set[tuple[int | None, int | None]] = {(i.id, None) for i in read.instances.images}
    known |= {(a.image_id, a.id) for a in read.instances.annotations}
    known |= {(r.image_id, r.annotation_id) for r in read.rejections}
    unknown = sorted(exclude - known, key=str)
    if unknown:
        image_id, annotation_id = unknown[0]
        first = f"image {image_id}"
        if annotation_id is not None:
            first += f", annotation {annotation_id}"
        logger.warning(
            "%s: %d of %d entries are not in the annotations, the first: %s",
            path,
            len(unknown),
            len(exclude),
            first,
        )


def log_rejections(selection: Selection) -> None:
    """Log one warning per reason for invalid annotations, then one line with the totals."""
    first: dict[str, Rejection] = {}
    counts: Counter[str] = Counter()
    for r in invalid_annotations(selection.rejections):
        first.setdefault(r.reason, r)
        counts[r.reason] += 1
    for reason, r in sorted(first.items()):
        example = f"annotation {r.annotation_id} of image {r.image_id}"
        detail = f" ({r.detail})" if r.detail else ""
        logger.warning(
            "%d invalid annotations: %s, the first: %s%s", counts[reason], reason, example, detail
        )
    summary = selection.summary()
    logger.info(
        "%d of %d images kept with %d annotations; dropped images: %s",
        summary["images_kept"],
        summary["images_total"],
        summary["annotations_kept"],
        ", ".join(f"{n} {reason}" for reason, n in summary["images_dropped"].items()) or "none",
    )


def read_exclusions(path: Path) -> set[Exclusion]:
    """Read the images and annotations that a user excludes.

    Args:
        path: CSV file in UTF-8 whose first two columns are `image_id` and `annotation_id`. A row
            without an annotation id excludes the whole image. Further columns are ignored, so that
            rows of `metrics/label_errors.csv` and `data/rejected.csv` can be copied unchanged.

    Returns:
        The ids of each row.

    Raises:
        UserError: The file is missing, or a row has no ids; the message names the line.
    """
    exclusions: set[Exclusion] = set()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            if next(rows, [])[:2] != ["image_id", "annotation_id"]:
                raise UserError(f"{path}: line 1: expected image_id,annotation_id at the start")
            for row in filter(None, rows):
                image_id, annotation_id = (*row, "")[:2]
                try:
                    exclusions.add((int(image_id), int(annotation_id) if annotation_id else None))
                except ValueError:
                    start = ascii(",".join(row[:2])[:60])
                    raise UserError(
                        f"{path}: line {rows.line_num}: expected an image id and an annotation id "
                        f"or nothing, got {start}"
                    ) from None
    except FileNotFoundError:
        raise UserError(
            f"filter.exclude: {path} not found; create it with the line image_id,annotation_id"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8: {error}") from None
    return exclusions


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
    classes: Sequence[str] | Literal["all"],
    *,
    max_instances: int,
    max_images: int,
    prefer: Prefer,
    seed: int,
    exclude: Set[Exclusion] = frozenset(),
) -> Selection:
    """Select images and annotations.

    An annotation is selected if its class is selected, it is valid, and it is not excluded. An
    image is selected if it is usable, is not excluded, and has 1 to `max_instances` such
    annotations. Entries that are unusable or invalid keep that reason even if they are excluded.

    Args:
        read: Entries and rejections of an instances file.
        classes: Names of categories in the order of their labels, or `all` for `all_classes`.
        max_instances: Maximum number of annotations of an image; a crowd region counts as one.
        max_images: Maximum number of images.
        prefer: Which images stay if there are more. `rare`: images with the rarest class first,
            otherwise in random order. `random`: a random sample. `first`: the first in file order.
        seed: Of the random order.
        exclude: Ids of images and annotations, as `read_exclusions` returns them.

    Returns:
        The selection, and a rejection for every image and annotation that is not selected.

    Raises:
        UserError: A class is not a category of the file, or no image is left.
    """
    classes = all_classes(read.instances) if classes == "all" else classes
    labels = _labels_by_category(read.instances.categories, classes)
    # Other classes are ignored, their unreadable annotations as well.
    other = {c.id for c in read.instances.categories} - labels.keys()
    rejections = [r for r in read.rejections if r.category_id not in other]
    images = _usable_images(read.instances.images, rejections)
    valid = _valid_annotations(read.instances.annotations, labels, images, exclude, rejections)
    dropped = _dropped_images(images, valid, exclude, rejections, max_instances)
    qualifying = {i: valid[i] for i in images if i not in dropped}
    if len(qualifying) > max_images:
        for image_id in _by_preference(qualifying, prefer, seed)[max_images:]:
            dropped[image_id] = Defect(Reason.OVER_MAX_IMAGES)
    for image_id, (reason, detail) in dropped.items():
        rejections.append(Rejection("image", image_id, None, reason, detail))
        for annotation in valid.pop(image_id, ()):
            rejections.append(Rejection("annotation", image_id, annotation.id, reason))
    if not valid:
        raise _no_images_left(rejections)
    kept = Instances(
        [images[image_id] for image_id in sorted(valid)],
        [annotation for image_id in sorted(valid) for annotation in valid[image_id]],
        [Category(label, name) for label, name in enumerate(classes, start=1)],
    )
    return Selection(kept, rejections)


def _no_images_left(rejections: Iterable[Rejection]) -> UserError:
    images = [r for r in rejections if r.kind == "image"]
    counts = Counter(r.reason for r in images).most_common()
    details = [r.detail for reason, _ in counts[:1] for r in images if r.reason == reason]
    first = f", the first: {repr(details[0][:200])[1:-1]}" if details and details[0] else ""
    counted = ", ".join(f"{number} {reason}" for reason, number in counts)
    return UserError(
        f"no images left after filtering {len(images)} ({counted}{first}): check filter.classes, "
        "filter.max_instances, and the annotations that download reads"
    )


def all_classes(instances: Instances) -> list[str]:
    """List the names of all categories with annotations, ordered by id, without duplicates.

    Categories without annotations are left out, since Roboflow lists a parent category that no
    annotation uses. A category `background` is left out, since the background is label 0.

    Raises:
        UserError: No category is left, or more than a mask can have.
    """
    used = {annotation.category_id for annotation in instances.annotations}
    categories = sorted(instances.categories, key=lambda category: category.id)
    names = dict.fromkeys(c.name for c in categories if c.id in used and c.name != "background")
    if not 0 < len(names) < IGNORE_INDEX:
        raise UserError(
            f"filter.classes: {len(names)} categories have annotations, expected 1 to "
            f"{IGNORE_INDEX - 1}"
        )
    return list(names)


def _image_defect(image: ImageRecord) -> Defect | None:
    name = image.file_name
    if image.rejected:
        return image.rejected
    if image.width < 1 or image.height < 1 or image.width * image.height > MAX_IMAGE_PIXELS:
        return Defect(Reason.MALFORMED_IMAGE, f"{image.width}x{image.height} pixels")
    if not name.isprintable() or not _SAFE_NAME.fullmatch(name) or _is_long(name):
        return Defect(Reason.UNSAFE_FILE_NAME, ascii(name[:80]))
    return None


def _is_long(file_name: str) -> bool:
    """File systems allow 255 bytes; temporary names and extensions need some of them."""
    return len(file_name.encode()) > 200


def _labels_by_category(categories: Sequence[Category], classes: Sequence[str]) -> dict[int, int]:
    """The label 1…N of each category id whose name is one of `classes`."""
    names = [category.name for category in categories]
    for name in classes:
        if name not in names:
            # COCO has 80 names; a damaged file may have names of any length.
            shown = ", ".join(ascii(name)[1:-1] for name in names)[:1000]
            raise UserError(
                f"filter.classes: unknown class {name!r}; the annotations have: {shown}"
            )
        if name == "ignored":
            raise UserError(
                "filter.classes: 'ignored' is the name of label 255; rename that category, or list "
                "the other classes"
            )
        if _is_long(flat_name(name)):
            raise UserError(f"filter.classes: {name[:40]!r}… is too long for a file name")
    name_of: dict[int, str] = {}
    for category in categories:
        other = name_of.setdefault(category.id, category.name)
        if other != category.name and not {other, category.name}.isdisjoint(classes):
            raise UserError(
                f"filter.classes: {other!r} and {category.name!r} have the same id "
                f"{category.id} in the annotations; give each a unique id"
            )
    label_of = {name: label for label, name in enumerate(classes, start=1)}
    return {c.id: label_of[c.name] for c in categories if c.name in label_of}


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


def _valid_annotations(
    annotations: Iterable[Annotation],
    labels: Mapping[int, int],
    images: Mapping[int, ImageRecord],
    exclude: Set[Exclusion],
    rejections: list[Rejection],
) -> dict[int, list[Annotation]]:
    """Map valid annotations of the selected classes by image id, with labels as category ids.

    Invalid and excluded annotations are appended to `rejections`.
    """
    valid: dict[int, list[Annotation]] = defaultdict(list)
    seen: set[int] = set()
    for annotation in annotations:
        label = labels.get(annotation.category_id)
        if label is None:
            continue
        defect = _annotation_defect(annotation, images.get(annotation.image_id), seen)
        seen.add(annotation.id)
        if not defect and (annotation.image_id, annotation.id) in exclude:
            defect = Defect(Reason.EXCLUDED)
        if defect:
            rejections.append(Rejection("annotation", annotation.image_id, annotation.id, *defect))
        else:
            annotation = msgspec.structs.replace(annotation, category_id=label)
            valid[annotation.image_id].append(annotation)
    return valid


def _annotation_defect(
    annotation: Annotation, image: ImageRecord | None, seen: Set[int]
) -> Defect | None:
    """The defect of an annotation, if any; `seen` has the ids of earlier annotations."""
    if image is None:
        return Defect(Reason.UNKNOWN_IMAGE)
    if annotation.id in seen:
        return Defect(Reason.DUPLICATE_ANNOTATION)
    if annotation.rejected:
        return annotation.rejected
    try:
        parse_segmentation(annotation.segmentation, image.width, image.height)
    except InvalidSegmentation as error:
        return Defect(error.reason, error.detail)
    return None


def _dropped_images(
    images: Iterable[int],
    valid: Mapping[int, Sequence[Annotation]],
    exclude: Set[Exclusion],
    rejections: Sequence[Rejection],
    max_instances: int,
) -> dict[int, Defect]:
    """The reason for each image id that is excluded or has no or too many valid annotations."""
    annotated = valid.keys() | {r.image_id for r in rejections if r.kind == "annotation"}
    emptied = {r.image_id for r in rejections if r.reason == Reason.EXCLUDED} - valid.keys()
    dropped: dict[int, Defect] = {}
    for image_id in images:
        count = len(valid.get(image_id, ()))
        if (image_id, None) in exclude or image_id in emptied:
            dropped[image_id] = Defect(Reason.EXCLUDED)
        elif image_id not in annotated:
            dropped[image_id] = Defect(Reason.NO_SELECTED_CLASS)
        elif count == 0:
            dropped[image_id] = Defect(Reason.NO_VALID_ANNOTATION)
        elif count > max_instances:
            dropped[image_id] = Defect(Reason.TOO_MANY_INSTANCES, f"{count} instances")
    return dropped


def _by_preference(
    annotations: Mapping[int, Sequence[Annotation]], prefer: Prefer, seed: int
) -> list[int]:
    """The image ids that are the keys of `annotations`, preferred images first."""
    if prefer == "first":
        return list(annotations)
    drawn = sorted(annotations, key=lambda image_id: sort_key(seed, "filter", image_id))
    if prefer == "random":
        return drawn
    images_of = images_by_class(itertools.chain.from_iterable(annotations.values()))
    rarest = rarest_class_by_image(images_of)
    return sorted(drawn, key=lambda image_id: (len(images_of[rarest[image_id]]), rarest[image_id]))


def write_selection(path: Path, selection: Selection) -> None:
    """Write the selected entries as a COCO instances file, which `read_instances` reads."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(msgspec.json.encode(selection.instances) + b"\n")
