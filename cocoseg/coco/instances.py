"""COCO instance annotations: read and validate.

    read = read_instances(Path("data/annotations/instances.json"))

A file of any content is either read or refused with a UserError. Single bad entries do not spoil
the rest: they are dropped with a reason. Nothing malformed reaches pycocotools, whose native code
crashes the process on it.
"""

import json
import mmap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from cocoseg.coco.rejections import Defect, Reason, Rejection
from cocoseg.core.errors import UserError

MAX_OUTLINE = 1 << 20
"""The longest outline of one annotation, in pixels. pycocotools takes about 100 bytes for each, and
crashes where the system refuses them."""

SIZES = {"small": 32**2, "medium": 96**2, "large": None}
"""COCO's limits: the areas in pixels below which objects belong to a size."""

# What msgspec and numpy can write again; JSON itself knows no limit.
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class ImageRecord(msgspec.Struct, gc=False, omit_defaults=True):
    """An entry of `images`: sizes in pixels.

    Some sources say more: the address that the photo is at, the split that it was given, and, of an
    image that is known to be of no use, why.
    """

    id: Int64
    file_name: str
    width: Int64
    height: Int64
    source: str = ""
    split: str = ""
    rejected: Defect | None = None
    ignored: list[tuple[int, int, int, int]] = []
    annotation_file: str = ""
    source_id: int | str | None = None

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
    bbox: msgspec.Raw = msgspec.Raw(b"null")
    iscrowd: Literal[0, 1] = 0
    rejected: Defect | msgspec.UnsetType = msgspec.UNSET
    source_category: str | msgspec.UnsetType = msgspec.UNSET
    source_id: int | str | msgspec.UnsetType = msgspec.UNSET


class Category(msgspec.Struct, omit_defaults=True):
    """An entry of `categories`."""

    id: Int64
    name: str
    supercategory: str = ""


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


class InvalidSegmentation(ValueError):
    """The segmentation cannot be rasterized."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
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
    """Read a COCO instances file, at about 800 MB a second when every entry has the right types.

    Entries of wrong types become rejections (`malformed_image`, `malformed_annotation`). Raises
    UserError when the file cannot be read or is no COCO instances file at all.
    """
    content = _map(path)
    try:
        return ReadResult(_decode_instances(content))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Some entry has a wrong type, or the JSON is Python's dialect (NaN): look at each.
        return _read_entry_by_entry(path, content[:])


class _ImageEntries(msgspec.Struct):
    images: list[dict[str, Any]]


_decode_image_entries = msgspec.json.Decoder(_ImageEntries).decode


def read_image_entries(path: Path) -> dict[int, dict[str, Any]]:
    """All fields of the images in a COCO instances file, by image id; of equal ids, the first.

    Raises UserError as `read_instances` does.
    """
    content = _map(path)
    try:
        entries = _decode_image_entries(content).images
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        entries = load_document(path, content[:])["images"]
    found: dict[int, dict[str, Any]] = {}
    for entry in entries:
        if (image_id := _integer(entry, "id")) is not None:
            found.setdefault(image_id, entry)
    return found


def _map(path: Path) -> mmap.mmap | bytes:
    """The content of a file; what is not decoded stays in the system's copy of it."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise UserError(f"{path} not found: run `dvc repro`, which makes it") from None
    except ValueError:  # an empty file
        return b""


# The second is for half a surrogate pair, which JSON can spell and UTF-8 cannot.
_WrongType = (msgspec.ValidationError, UnicodeEncodeError)


def _read_entry_by_entry(path: Path, content: bytes) -> ReadResult:
    document = load_document(path, content)
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
                Rejection("image", image_id, None, Reason.MALFORMED_IMAGE, str(error))
            )
    for entry in document["annotations"]:
        try:
            result.instances.annotations.append(_convert_annotation(entry))
        except _WrongType as error:
            image_id, annotation_id, category_id = (
                _integer(entry, key) for key in ("image_id", "id", "category_id")
            )
            reason = Reason.MALFORMED_ANNOTATION
            result.rejections.append(
                Rejection("annotation", image_id, annotation_id, reason, str(error), category_id)
            )
    return result


def load_document(path: Path | str, content: bytes) -> dict[str, Any]:
    """The JSON object in `content`, which has the three lists of a COCO instances file.

    Raises UserError, which names `path`, where it is none.
    """
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
    if isinstance(entry, dict):
        raw = {key: entry[key] for key in ("segmentation", "bbox") if key in entry}
        entry = {**entry, **{k: msgspec.Raw(json.dumps(v).encode()) for k, v in raw.items()}}
    return msgspec.convert(entry, Annotation)


def _integer(entry: Any, key: str) -> int | None:
    """`entry[key]` where that is a number that fits a rejection."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if type(value) is int and abs(value) < 1 << 63 else None


# --- Validation ---------------------------------------------------------------------------------


class _RawRunLengths(msgspec.Struct):
    size: list[Int64]
    counts: list[Int64] | str


_decode_polygons = msgspec.json.Decoder(Polygons).decode
_decode_run_lengths = msgspec.json.Decoder(_RawRunLengths).decode


def parse_segmentation(raw: msgspec.Raw, width: int, height: int) -> Polygons | RunLengths:
    """Decode and check an annotation's segmentation against its image's size in pixels.

    The result is safe for pycocotools, which cuts off what lies beyond the image. Polygons of
    fewer than three points are left out if the annotation has others.

    Raises:
        InvalidSegmentation: nothing can be rasterized.
    """
    try:
        polygons = _decode_polygons(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        content = bytes(raw).lstrip()
        if content.startswith(b"{"):
            return _parse_run_lengths(content, width, height)
        raise _polygons_defect(content) from None
    if len(min(polygons, key=len, default=())) < 6:
        polygons = _without_short_polygons(polygons)
    points, extent = 0, float(max(width, height))
    for polygon in polygons:
        points += len(polygon) // 2
        extent = max(extent, max(polygon) - min(polygon))
        if len(polygon) % 2:
            raise InvalidSegmentation(Reason.POLYGON_ODD, f"{len(polygon)} coordinates")
    # Few outlines have enough points to be worth measuring.
    if points * extent > MAX_OUTLINE < sum(map(_outline_length, polygons)):
        raise InvalidSegmentation(Reason.OUTLINE_TOO_LONG, f"more than {MAX_OUTLINE} pixels")
    return polygons


def _without_short_polygons(polygons: Polygons) -> Polygons:
    """The polygons of three points or more. Raises InvalidSegmentation where there are none."""
    kept = [polygon for polygon in polygons if len(polygon) >= 6]
    longest = max(polygons, key=len, default=[])
    if not longest:
        raise InvalidSegmentation(Reason.SEGMENTATION_EMPTY)
    if not kept:
        if len(longest) % 2:
            raise InvalidSegmentation(Reason.POLYGON_ODD, f"{len(longest)} coordinates")
        raise InvalidSegmentation(Reason.POLYGON_TOO_SHORT, f"{len(longest) // 2} points")
    return kept


def _polygons_defect(content: bytes) -> InvalidSegmentation:
    """Why a segmentation is neither polygons nor a run-length encoding."""
    if content == b"null":
        return InvalidSegmentation(Reason.SEGMENTATION_MISSING)
    return _numbers_defect(content)


def _outline_length(polygon: list[float]) -> float:
    """In pixels, a diagonal step counting as one."""
    xs, ys = polygon[0::2], polygon[1::2]
    steps = zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
    return sum(max(abs(to_x - x), abs(to_y - y)) for x, y, to_x, to_y in steps)


def _numbers_defect(content: bytes) -> InvalidSegmentation:
    """What keeps msgspec from reading polygons: numbers that no float holds, or other things."""
    try:
        msgspec.convert(json.loads(content), list[list[int | float]])
    except (msgspec.ValidationError, ValueError, RecursionError):
        return InvalidSegmentation(Reason.SEGMENTATION_MALFORMED, "no list of lists of numbers")
    return InvalidSegmentation(Reason.COORDINATE_NOT_FINITE)


def _parse_run_lengths(content: bytes, width: int, height: int) -> RunLengths:
    try:
        raw = _decode_run_lengths(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSegmentation(Reason.RLE_MALFORMED, str(error)) from None
    if raw.size != [height, width]:
        raise InvalidSegmentation(Reason.RLE_SIZE, f"size {raw.size[:4]}, image {[height, width]}")
    counts = decode_counts(raw.counts) if isinstance(raw.counts, str) else raw.counts
    if min(counts, default=0) < 0:
        raise InvalidSegmentation(Reason.RLE_COUNTS, f"a negative count: {min(counts)}")
    if sum(counts) != width * height:
        raise InvalidSegmentation(
            Reason.RLE_COUNTS, f"add up to {sum(counts)}, not {width * height}"
        )
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
            raise InvalidSegmentation(Reason.RLE_COUNTS, "undecodable string")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise InvalidSegmentation(Reason.RLE_COUNTS, "string ends in the middle of a number")
    return counts


# --- Classes and images ---------------------------------------------------------------------------


def images_by_class(annotations: Iterable[Annotation]) -> dict[int, set[int]]:
    """The ids of the images that each category occurs in."""
    images_of: dict[int, set[int]] = defaultdict(set)
    for annotation in annotations:
        images_of[annotation.category_id].add(annotation.image_id)
    return images_of


def rarest_class_by_image(images_of: Mapping[int, Set[int]]) -> dict[int, int]:
    """The rarest category of each image: the one in the fewest images, of equals the lowest id.

    `images_of` are the ids of the images that each category occurs in.
    """
    rarest_last = sorted(images_of, key=lambda c: (len(images_of[c]), c), reverse=True)
    return {image_id: category for category in rarest_last for image_id in images_of[category]}
