"""COCO instance annotations: read, validate, select.

    instances = read_instances(Path("data/annotations/instances.json"))
    selection = select(instances, ["person", "car"], max_instances=10, max_images=8000,
                       prefer="rare", seed=0)

A file of any content is either read or refused with a UserError. Single bad entries do not spoil
the rest: they are dropped with a reason. Nothing malformed reaches pycocotools, whose native code
crashes the process on it.
"""

import csv
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from cocoseg.errors import UserError
from cocoseg.files import atomic_file
from cocoseg.randomness import sort_key

logger = logging.getLogger(__name__)

MAX_IMAGE_PIXELS = 1 << 26
"""Larger claims (than 8,192 squared) are malformed. With one pixel more, pycocotools can write
beyond its buffer: four runs of 2^24 pixels fill the six bytes reserved for each, a NUL follows."""

MAX_OUTLINE = 1 << 20
"""The longest outline of one annotation, in pixels. pycocotools takes about 100 bytes for each, and
crashes where the system refuses them."""

# What msgspec and numpy can write again; JSON itself knows no limit.
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class ImageRecord(msgspec.Struct, gc=False):
    """An entry of `images`: sizes in pixels."""

    id: Int64
    file_name: str
    width: Int64
    height: Int64

    @property
    def stem(self) -> str:
        """The file name without its ending: what masks and splits are named by."""
        return self.file_name.rsplit(".", 1)[0]


class Annotation(msgspec.Struct, gc=False):
    """An entry of `annotations`.

    The segmentation stays undecoded JSON until someone needs it, which keeps the memory for a file
    near the size of the file.
    """

    id: Int64
    image_id: Int64
    category_id: Int64
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    iscrowd: Literal[0, 1] = 0


class Category(msgspec.Struct):
    id: Int64
    name: str


class Instances(msgspec.Struct):
    """The parts of a COCO instances file that this project reads.

    In `data/selection.json`, which has the same form, category ids are labels: 1…N in the order of
    `filter.classes`.
    """

    images: list[ImageRecord]
    annotations: list[Annotation]
    categories: list[Category]


class RunLengths(msgspec.Struct):
    """A decoded run-length encoding: `counts` alternate between unset and set pixels, column by
    column, and start with the unset ones."""

    size: tuple[int, int]
    counts: list[int]


Polygons = list[list[float]]


class Rejection(msgspec.Struct, gc=False):
    """Why an entry is missing from the selection; an id is None where the entry had none."""

    kind: Literal["image", "annotation"]
    image_id: int | None
    annotation_id: int | None
    reason: str
    detail: str = ""
    category_id: int | None = None


class InvalidSegmentation(ValueError):
    """The segmentation cannot be painted; `reason` is a key of `metrics/filter.json`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


# --- Reading ------------------------------------------------------------------------------------


@dataclass
class ReadResult:
    """What a file held: the readable entries, and a rejection for each unreadable one."""

    instances: Instances
    rejections: list[Rejection] = field(default_factory=list)


_decode_instances = msgspec.json.Decoder(Instances).decode


def read_instances(path: Path) -> ReadResult:
    """Read a COCO instances file, at about 250 MB a second when every entry has the right types.

    Entries of wrong types become rejections (`malformed_image`, `malformed_annotation`). Raises
    UserError when the file cannot be read or is no COCO instances file at all.
    """
    try:
        # NumPy takes huge pages, which makes this three times faster than path.read_bytes().
        content = np.fromfile(path, np.uint8).data
    except FileNotFoundError:
        raise UserError(f"{path} not found: run `dvc repro`, which makes it") from None
    try:
        return ReadResult(_decode_instances(content))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Some entry has a wrong type, or the JSON is Python's dialect (NaN): look at each.
        return _read_entry_by_entry(path, content.tobytes())


# The second is for half a surrogate pair, which JSON can spell and UTF-8 cannot.
_WrongType = (msgspec.ValidationError, UnicodeEncodeError)


def _read_entry_by_entry(path: Path, content: bytes) -> ReadResult:
    document = _load_document(path, content)
    try:
        categories = msgspec.convert(document["categories"], list[Category])
    except _WrongType as error:
        raise UserError(f"{path} is no COCO instances file: categories: {error}") from None
    result = ReadResult(Instances([], [], categories))
    for entry in document["images"]:
        try:
            result.instances.images.append(msgspec.convert(entry, ImageRecord))
        except _WrongType as error:
            image_id = _integer(entry, "id")
            result.rejections.append(
                Rejection("image", image_id, None, "malformed_image", str(error))
            )
    for entry in document["annotations"]:
        try:
            result.instances.annotations.append(_convert_annotation(entry))
        except _WrongType as error:
            image_id, annotation_id, category_id = (
                _integer(entry, key) for key in ("image_id", "id", "category_id")
            )
            reason = "malformed_annotation"
            result.rejections.append(
                Rejection("annotation", image_id, annotation_id, reason, str(error), category_id)
            )
    return result


def _load_document(path: Path, content: bytes) -> dict[str, Any]:
    """The JSON object in `content`, which has the three lists of a COCO instances file."""
    try:
        document = json.loads(content)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path} is not valid JSON: {error.msg} at {where}") from None
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is not {error.encoding}"
        raise UserError(f"{path} is not valid JSON: {where}") from None
    except RecursionError:
        raise UserError(f"{path} is no COCO instances file: nested too deeply") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise UserError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise UserError(f"{path} is no COCO instances file: its top level is no object")
    for key in ("images", "annotations", "categories"):
        if not isinstance(document.get(key), list):
            raise UserError(f"{path} is no COCO instances file: it has no list `{key}`")
    return document


def _convert_annotation(entry: Any) -> Annotation:
    if isinstance(entry, dict) and "segmentation" in entry:
        text = json.dumps(entry["segmentation"])
        entry = {**entry, "segmentation": msgspec.Raw(text.encode())}
    return msgspec.convert(entry, Annotation)


def _integer(entry: Any, key: str) -> int | None:
    """`entry[key]` where that is a number that fits a rejection."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if type(value) is int and abs(value) < 1 << 63 else None


# --- Validation ---------------------------------------------------------------------------------


class _RawRunLengths(msgspec.Struct):
    size: list[Int64]
    counts: list[Int64] | str


# What nearly all segmentations are; msgspec checks it 10 times faster than Python could.
_Coordinate = Annotated[float, msgspec.Meta(ge=0)]
_PlausiblePolygon = Annotated[list[_Coordinate], msgspec.Meta(min_length=6)]
_PlausiblePolygons = Annotated[list[_PlausiblePolygon], msgspec.Meta(min_length=1)]

_decode_plausible_polygons = msgspec.json.Decoder(_PlausiblePolygons).decode
_decode_polygons = msgspec.json.Decoder(Polygons).decode
_decode_run_lengths = msgspec.json.Decoder(_RawRunLengths).decode


def parse_segmentation(raw: msgspec.Raw, width: int, height: int) -> Polygons | RunLengths:
    """Decode and check an annotation's segmentation against its image's size in pixels.

    What comes back is safe to hand to pycocotools. Raises InvalidSegmentation with the reason.
    """
    try:
        polygons = _decode_plausible_polygons(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        content = bytes(raw).lstrip()
        if content.startswith(b"{"):
            return _parse_run_lengths(content, width, height)
        raise _polygons_fault(content) from None
    points = 0
    for polygon in polygons:
        points += len(polygon) // 2
        if len(polygon) % 2:
            raise InvalidSegmentation("polygon_odd", f"{len(polygon)} coordinates")
        if max(polygon) > min(width, height):
            x, y = max(polygon[0::2]), max(polygon[1::2])
            if x > width:
                raise InvalidSegmentation("coordinate_beyond_image", f"x {x:g} > width {width}")
            if y > height:
                raise InvalidSegmentation("coordinate_beyond_image", f"y {y:g} > height {height}")
    # Few outlines have enough points to be worth measuring.
    if points * max(width, height) > MAX_OUTLINE < sum(map(_outline_length, polygons)):
        raise InvalidSegmentation("outline_too_long", f"more than {MAX_OUTLINE} pixels")
    return polygons


def _polygons_fault(content: bytes) -> InvalidSegmentation:
    """Why a segmentation that is no run-length encoding is not plausible."""
    if content == b"null":
        return InvalidSegmentation("segmentation_missing")
    try:
        polygons = _decode_polygons(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _numbers_fault(content)
    polygon = min(polygons, key=len, default=[])
    if not polygon:
        return InvalidSegmentation("segmentation_empty")
    if len(polygon) % 2:
        return InvalidSegmentation("polygon_odd", f"{len(polygon)} coordinates")
    if len(polygon) < 6:
        return InvalidSegmentation("polygon_too_short", f"{len(polygon) // 2} points")
    return InvalidSegmentation("coordinate_negative", f"{min(map(min, polygons)):g}")


def _outline_length(polygon: list[float]) -> float:
    """In pixels, a diagonal step counting as one."""
    xs, ys = polygon[0::2], polygon[1::2]
    steps = zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
    return sum(max(abs(to_x - x), abs(to_y - y)) for x, y, to_x, to_y in steps)


def _numbers_fault(content: bytes) -> InvalidSegmentation:
    """What keeps msgspec from reading polygons: numbers that no float holds, or other things."""
    try:
        msgspec.convert(json.loads(content), list[list[int | float]])
    except (msgspec.ValidationError, ValueError, RecursionError):
        return InvalidSegmentation("segmentation_malformed", "no list of lists of numbers")
    return InvalidSegmentation("coordinate_not_finite")


def _parse_run_lengths(content: bytes, width: int, height: int) -> RunLengths:
    try:
        raw = _decode_run_lengths(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSegmentation("rle_malformed", str(error)) from None
    if raw.size != [height, width]:
        raise InvalidSegmentation("rle_size", f"size {raw.size[:4]}, image {[height, width]}")
    counts = decode_counts(raw.counts) if isinstance(raw.counts, str) else raw.counts
    if min(counts, default=0) < 0:
        raise InvalidSegmentation("rle_counts", f"a negative count: {min(counts)}")
    if sum(counts) != width * height:
        raise InvalidSegmentation("rle_counts", f"add up to {sum(counts)}, not {width * height}")
    return RunLengths((height, width), counts)


def decode_counts(text: str) -> list[int]:
    """Decode COCO's compressed RLE counts.

    The format is that of pycocotools' `rleFrString`: little-endian groups of five bits and a
    continuation bit, offset by 48, sign-extended; from the fourth on, a count is the difference to
    the one two before. Raises InvalidSegmentation where pycocotools would read beyond the string or
    overflow.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise InvalidSegmentation("rle_counts", "undecodable string")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise InvalidSegmentation("rle_counts", "string ends in the middle of a number")
    return counts


_UNSAFE_NAME = re.compile(r'^$|^\.|[/\\:*?"<>|]|[. ]$')


def _image_fault(image: ImageRecord) -> tuple[str, str] | None:
    """Why an image entry cannot be used, as (reason, detail)."""
    name = image.file_name
    if image.width < 1 or image.height < 1 or image.width * image.height > MAX_IMAGE_PIXELS:
        return "malformed_image", f"{image.width}x{image.height} pixels"
    if not name.isprintable() or _UNSAFE_NAME.search(name) or len(name.encode()) > 200:
        return "unsafe_file_name", ascii(name[:80])
    return None


# --- Selection ----------------------------------------------------------------------------------


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
                c.name: {"images": images_of[c.id], "instances": instances_of[c.id]}
                for c in kept.categories
            },
        }


def log_rejections(selection: Selection) -> None:
    """Log one warning for each reason an annotation was invalid, and one line of totals."""
    by_image = {r.image_id: r.reason for r in selection.rejections if r.kind == "image"}
    first: dict[str, Rejection] = {}
    counts: Counter[str] = Counter()
    for r in selection.rejections:
        if r.kind == "annotation" and r.reason != by_image.get(r.image_id):
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


def images_by_class(annotations: Iterable[Annotation]) -> Counter[int]:
    """In how many images each category occurs."""
    return Counter(category for category, _ in {(a.category_id, a.image_id) for a in annotations})


def rarest_class_by_image(annotations: Sequence[Annotation]) -> dict[int, int]:
    """The rarest category of each image: the one in the fewest images, of equals the lowest id."""
    images_of = images_by_class(annotations)
    by_rarity = sorted(images_of, key=lambda category: (images_of[category], category))
    rank = {category: place for place, category in enumerate(by_rarity)}
    rarest_last = sorted(annotations, key=lambda a: rank[a.category_id], reverse=True)
    return {a.image_id: a.category_id for a in rarest_last}


def select(
    read: ReadResult,
    classes: Sequence[str],
    *,
    max_instances: int,
    max_images: int,
    prefer: Literal["rare", "random", "first"],
    seed: int,
) -> Selection:
    """Choose the images and annotations to work with.

    Annotations of `classes` are kept when valid; images when they have at least one and at most
    `max_instances` of them. Of more than `max_images`, `prefer` says which stay: those of the
    rarest class first, a random draw by `seed`, or the first of the file. Raises UserError when a
    class is none of the file's categories, or nothing is left.
    """
    labels = _labels_by_category(read.instances.categories, classes)
    # An unreadable annotation of another class is not looked at either.
    other = {c.id for c in read.instances.categories} - labels.keys()
    rejections = [r for r in read.rejections if r.category_id not in other]
    images = _usable_images(read.instances.images, rejections)
    valid = _valid_annotations(read.instances.annotations, labels, images, rejections)
    annotated = valid.keys() | {r.image_id for r in rejections if r.kind == "annotation"}
    dropped: dict[int, tuple[str, str]] = {}
    for image_id in images:
        count = len(valid.get(image_id, ()))
        if image_id not in annotated:
            dropped[image_id] = "no_selected_class", ""
        elif count == 0:
            dropped[image_id] = "no_valid_annotation", ""
        elif count > max_instances:
            dropped[image_id] = "too_many_instances", f"{count} instances"
    qualifying = {i: valid[i] for i in images if i not in dropped}
    if len(qualifying) > max_images:
        for image_id in _by_preference(qualifying, prefer, seed)[max_images:]:
            dropped[image_id] = "over_max_images", ""
    for image_id, (reason, detail) in dropped.items():
        rejections.append(Rejection("image", image_id, None, reason, detail))
        for annotation in valid.pop(image_id, ()):
            rejections.append(Rejection("annotation", image_id, annotation.id, reason))
    if not valid:
        raise UserError(
            f"no image is left of {len(read.instances.images)}: "
            "see filter.classes and filter.max_instances"
        )
    kept = Instances(
        [images[image_id] for image_id in sorted(valid)],
        [annotation for image_id in sorted(valid) for annotation in valid[image_id]],
        [Category(label, name) for label, name in enumerate(classes, start=1)],
    )
    return Selection(kept, rejections)


def _labels_by_category(categories: Iterable[Category], classes: Sequence[str]) -> dict[int, int]:
    """The label 1…N of each category id whose name is one of `classes`."""
    names = [category.name for category in categories]
    for name in classes:
        if name not in names:
            # COCO has 80 names; what a damaged file has may be of any length.
            shown = ", ".join(ascii(name)[1:-1] for name in names)[:1000]
            raise UserError(
                f"filter.classes: unknown class {name!r}; the annotations have: {shown}"
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
        fault = _image_fault(image)
        if fault is None and image.id in usable:
            fault = "duplicate_image", "id"
        # Masks are named by the stem, on file systems that may not tell upper from lower case.
        if fault is None and image.stem.casefold() in stems:
            fault = "duplicate_image", f"file name {image.file_name}"
        if fault:
            rejections.append(Rejection("image", image.id, None, *fault))
        else:
            usable[image.id] = image
            stems.add(image.stem.casefold())
    return usable


def _valid_annotations(
    annotations: Iterable[Annotation],
    labels: Mapping[int, int],
    images: Mapping[int, ImageRecord],
    rejections: list[Rejection],
) -> dict[int, list[Annotation]]:
    """The annotations of the selected classes by image id, their category ids replaced by labels;
    invalid ones are appended to `rejections`."""
    valid: dict[int, list[Annotation]] = {}
    seen: set[int] = set()
    for annotation in annotations:
        label = labels.get(annotation.category_id)
        if label is None:
            continue
        fault = _annotation_fault(annotation, images.get(annotation.image_id), seen)
        seen.add(annotation.id)
        if fault:
            rejections.append(Rejection("annotation", annotation.image_id, annotation.id, *fault))
        else:
            annotation = msgspec.structs.replace(annotation, category_id=label)
            valid.setdefault(annotation.image_id, []).append(annotation)
    return valid


def _annotation_fault(
    annotation: Annotation, image: ImageRecord | None, seen: Set[int]
) -> tuple[str, str] | None:
    """Why an annotation cannot be used, as (reason, detail); `seen` holds the ids before it."""
    if image is None:
        return "image_missing", ""
    if annotation.id in seen:
        return "duplicate_annotation", ""
    try:
        parse_segmentation(annotation.segmentation, image.width, image.height)
    except InvalidSegmentation as error:
        return error.reason, error.detail
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
    flat = [annotation for of_image in annotations.values() for annotation in of_image]
    images_of, rarest = images_by_class(flat), rarest_class_by_image(flat)
    return sorted(drawn, key=lambda image_id: (images_of[rarest[image_id]], rarest[image_id]))


def write_selection(path: Path, selection: Selection) -> None:
    """Write the chosen part as a COCO instances file, which `read_instances` reads."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(msgspec.json.encode(selection.instances) + b"\n")


def write_rejections(path: Path, rejections: Sequence[Rejection]) -> None:
    """Write one CSV row for each rejection; those without an annotation id are of whole images."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image_id", "annotation_id", "reason", "detail"])
        writer.writerows([r.image_id, r.annotation_id, r.reason, r.detail] for r in rejections)
