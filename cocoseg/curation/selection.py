"""The images and annotations to work with, chosen from what a COCO instances file holds.

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
from typing import Any, Literal

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
"""The id of an image, and of one of its annotations; None: the whole image."""

_SAFE_NAME = re.compile(r'(?!\.)[^/\\:*?"<>|]+(?<![. ])')


@dataclass
class Selection:
    """What `select` chose. `instances` has categories 1…N in the order of the classes asked for,
    images by id, annotations in file order. Every other image, and every other annotation of the
    classes asked for, stands in `rejections`."""

    instances: Instances
    rejections: list[Rejection]

    def summary(self) -> dict[str, Any]:
        """The counts of `metrics/filter.json`."""
        kept = self.instances
        images = Counter(r.reason for r in self.rejections if r.kind == "image")
        annotations = Counter(r.reason for r in self.rejections if r.kind == "annotation")
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
    """Log one warning when some of the ids to exclude, which come from `path`, do not exist."""
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
            "%s: %d of %d entries are not among the annotations, such as %s",
            path,
            len(unknown),
            len(exclude),
            first,
        )


def log_rejections(selection: Selection) -> None:
    """Log one warning for each reason an annotation was invalid, and one line of totals."""
    first: dict[str, Rejection] = {}
    counts: Counter[str] = Counter()
    for r in invalid_annotations(selection.rejections):
        first.setdefault(r.reason, r)
        counts[r.reason] += 1
    for reason, r in sorted(first.items()):
        example = f"annotation {r.annotation_id} of image {r.image_id}"
        detail = f" ({r.detail})" if r.detail else ""
        logger.warning("%d invalid: %s, first %s%s", counts[reason], reason, example, detail)
    summary = selection.summary()
    logger.info(
        "%d of %d images kept with %d annotations; dropped images: %s",
        summary["images_kept"],
        summary["images_total"],
        summary["annotations_kept"],
        ", ".join(f"{n} {reason}" for reason, n in summary["images_dropped"].items()) or "none",
    )


def read_exclusions(path: Path) -> set[Exclusion]:
    """What a person has taken out, from a CSV file whose first two columns are ids.

    They are `image_id` and `annotation_id`; without the second a row means the whole image. Further
    columns do not count, so that rows of `metrics/suspects.csv` and `data/rejected.csv` can be
    copied as they are. Raises UserError, with the line, when the file is missing or no such table.
    """
    exclusions: set[Exclusion] = set()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            if next(rows, [])[:2] != ["image_id", "annotation_id"]:
                raise UserError(f"{path}: line 1 should begin with image_id,annotation_id")
            for row in filter(None, rows):
                image_id, annotation_id = (*row, "")[:2]
                try:
                    exclusions.add((int(image_id), int(annotation_id) if annotation_id else None))
                except ValueError:
                    start = ascii(",".join(row[:2])[:60])
                    raise UserError(
                        f"{path}: line {rows.line_num}: should begin with the id of an image and "
                        f"that of an annotation or nothing (is {start})"
                    ) from None
    except FileNotFoundError:
        raise UserError(
            f"filter.exclude: {path} not found; make one with the line image_id,annotation_id"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file in UTF-8: {error}") from None
    return exclusions


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """It would take a fifth of the time, looking for cycles in lists that only grow."""
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
    prefer: Literal["rare", "random", "first"],
    seed: int,
    exclude: Set[Exclusion] = frozenset(),
) -> Selection:
    """Choose the images and annotations to work with.

    `all` classes are those that `all_classes` gives. Annotations of `classes` are kept when valid
    and not in `exclude`; images when they are not in `exclude` themselves and have at least one and
    at most `max_instances` of such annotations. Of more than `max_images`, `prefer` says which
    stay: those of the rarest class first, a random draw by `seed`, or the first of the file. So
    what is excluded is `excluded` and nothing else, unless it could not be used anyway; an image
    whose valid annotations are all excluded is `excluded` as well. Raises UserError when a class is
    none of the file's categories, or nothing is left.
    """
    classes = all_classes(read.instances) if classes == "all" else classes
    labels = _labels_by_category(read.instances.categories, classes)
    # An unreadable annotation of another class is not looked at either.
    other = {c.id for c in read.instances.categories} - labels.keys()
    rejections = [r for r in read.rejections if r.category_id not in other]
    images = _usable_images(read.instances.images, rejections)
    valid = _valid_annotations(read.instances.annotations, labels, images, exclude, rejections)
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
    qualifying = {i: valid[i] for i in images if i not in dropped}
    if len(qualifying) > max_images:
        for image_id in _by_preference(qualifying, prefer, seed)[max_images:]:
            dropped[image_id] = Defect(Reason.OVER_MAX_IMAGES)
    for image_id, (reason, detail) in dropped.items():
        rejections.append(Rejection("image", image_id, None, reason, detail))
        for annotation in valid.pop(image_id, ()):
            rejections.append(Rejection("annotation", image_id, annotation.id, reason))
    if not valid:
        raise UserError(f"no image is left of {_why_none_is_left(rejections)}")
    kept = Instances(
        [images[image_id] for image_id in sorted(valid)],
        [annotation for image_id in sorted(valid) for annotation in valid[image_id]],
        [Category(label, name) for label, name in enumerate(classes, start=1)],
    )
    return Selection(kept, rejections)


def _why_none_is_left(rejections: Iterable[Rejection]) -> str:
    images = [r for r in rejections if r.kind == "image"]
    counts = Counter(r.reason for r in images).most_common()
    details = [r.detail for reason, _ in counts[:1] for r in images if r.reason == reason]
    first = f", first {repr(details[0][:200])[1:-1]}" if details and details[0] else ""
    counted = ", ".join(f"{number} {reason}" for reason, number in counts)
    return (
        f"{len(images)} ({counted}{first}): see filter.classes and filter.max_instances, "
        "and the annotations that download names"
    )


def all_classes(instances: Instances) -> list[str]:
    """The names of the categories that an annotation has, by category id, each once.

    Some tools (Roboflow) list a category that stands for the others and is used by none. What is
    called background is label 0 already. Raises UserError when none or too many are left.
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
    """File systems bear 255 bytes; temporary names and endings want some of them."""
    return len(file_name.encode()) > 200


def _labels_by_category(categories: Sequence[Category], classes: Sequence[str]) -> dict[int, int]:
    """The label 1…N of each category id whose name is one of `classes`."""
    names = [category.name for category in categories]
    for name in classes:
        if name not in names:
            # COCO has 80 names; what a damaged file has may be of any length.
            shown = ", ".join(ascii(name)[1:-1] for name in names)[:1000]
            raise UserError(
                f"filter.classes: unknown class {name!r}; the annotations have: {shown}"
            )
        if name == "ignored":
            raise UserError(
                "filter.classes: void is what label 255 is called; rename that category, or list "
                "the others only"
            )
        if _is_long(flat_name(name)):
            raise UserError(f"filter.classes: {name[:40]!r}… is too long for the name of a file")
    name_of: dict[int, str] = {}
    for category in categories:
        other = name_of.setdefault(category.id, category.name)
        if other != category.name and not {other, category.name}.isdisjoint(classes):
            raise UserError(
                f"filter.classes: {other!r} and {category.name!r} have the same id, {category.id}, "
                "in the annotations; give each its own"
            )
    label_of = {name: label for label, name in enumerate(classes, start=1)}
    return {c.id: label_of[c.name] for c in categories if c.name in label_of}


def _usable_images(
    images: Iterable[ImageRecord], rejections: list[Rejection]
) -> dict[int, ImageRecord]:
    """The images by id; unusable ones are appended to `rejections`."""
    usable: dict[int, ImageRecord] = {}
    stems: set[str] = set()
    for image in images:
        defect = _image_defect(image)
        # Masks are named by the stem, on file systems that may not tell upper from lower case.
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
    """The annotations of the selected classes by image id, their category ids replaced by labels;
    invalid and excluded ones are appended to `rejections`."""
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
    """Why an annotation cannot be used; `seen` holds the ids before it."""
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


def _by_preference(
    annotations: Mapping[int, Sequence[Annotation]],
    prefer: Literal["rare", "random", "first"],
    seed: int,
) -> list[int]:
    """The image ids that are the keys of `annotations`, those to keep first."""
    if prefer == "first":
        return list(annotations)
    drawn = sorted(annotations, key=lambda image_id: sort_key(seed, "filter", image_id))
    if prefer == "random":
        return drawn
    images_of = images_by_class(itertools.chain.from_iterable(annotations.values()))
    rarest = rarest_class_by_image(images_of)
    return sorted(drawn, key=lambda image_id: (len(images_of[rarest[image_id]]), rarest[image_id]))


def write_selection(path: Path, selection: Selection) -> None:
    """Write the chosen part as a COCO instances file, which `read_instances` reads."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(msgspec.json.encode(selection.instances) + b"\n")
