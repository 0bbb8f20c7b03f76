"""Reading and validation of COCO instance annotations.

    result = read_instances(Path("data/annotations/instances.json"))

Any file is either read or refused with a UserError. Invalid entries are rejected one by one, each
with a reason. No malformed segmentation reaches pycocotools, whose native code would crash.
"""

import json
import mmap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from cocoseg.coco.bounds import ROUNDING, Box, Overshoot, overshoot, possible_box
from cocoseg.coco.rejections import Defect, Reason, Rejection
from cocoseg.core.errors import MissingFileError, UserError

MAX_OUTLINE = 1 << 20
"""Maximum length of an annotation's outlines, in pixels. pycocotools allocates about 100 bytes per
pixel and crashes if the allocation fails."""

SIZES = {"small": 32**2, "medium": 96**2, "large": None}
"""COCO's object sizes: the area in pixels that each size stays below; None is unlimited."""

# The range that msgspec and NumPy can write; JSON itself has no limit.
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class ImageRecord(msgspec.Struct, gc=False, omit_defaults=True):
    """An entry of `images`.

    Attributes:
        id: unique in the file.
        file_name: name or path from the file. Check it before joining it to a directory.
        width: in pixels.
        height: in pixels.
        source: where the image comes from: a URL or a path. Not part of COCO.
        split: the split that an export assigns: `train`, `val`, `test`, or empty. Not part of COCO.
        rejected: why `cocoseg.sources` already rejected the image. Not part of COCO.
        ignored: boxes whose pixels are ignored: those of rejected annotations. Not part of COCO.
        annotation_file: the export that the entry comes from. Not part of COCO.
        source_id: its id in that export, if another. Not part of COCO.
    """

    id: Int64
    file_name: str
    width: Int64
    height: Int64
    source: str = ""
    split: str = ""
    rejected: Defect | None = None
    ignored: list[Box] = []
    annotation_file: str = ""
    source_id: int | str | None = None

    @property
    def stem(self) -> str:
        """The file name without its extension, which names masks and lines of splits."""
        return self.file_name.rsplit(".", 1)[0]


class Annotation(msgspec.Struct, gc=False):
    """An entry of `annotations`.

    Attributes:
        id: unique in the file.
        image_id: the `id` of an `ImageRecord`.
        category_id: the `id` of a `Category`.
        segmentation: undecoded JSON; `parse_segmentation` decodes and checks it. Decoding on demand
            keeps memory near the size of the file.
        bbox: undecoded JSON: left, top, width, height in pixels.
        iscrowd: 1 for a region of several objects that are not outlined individually.
        rejected: why `cocoseg.sources` already rejected the annotation. Not part of COCO.
        source_category: the name of its category, if its class merges several. Not part of COCO.
        source_id: its id in the export that it comes from, if another. Not part of COCO.
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
    """A COCO instances file. Other fields of the file are not read.

    `read_instances` checks the types of the fields; `cocoseg.curation.selection.select` checks ids,
    file names and segmentations. In `data/selection.json`, which has the same format, category ids
    are the labels 1…N in the order of `filter.classes`.

    Attributes:
        images: in file order.
        annotations: in file order.
        categories: in file order.
    """

    images: list[ImageRecord]
    annotations: list[Annotation]
    categories: list[Category]


class RunLengths(msgspec.Struct):
    """A decoded run-length encoding.

    Attributes:
        size: height and width of the image, in pixels.
        counts: lengths of alternating runs of unset and set pixels, column by column. The first
            run is unset. The lengths add up to height times width.
    """

    size: tuple[int, int]
    counts: list[int]


Polygons = list[list[float]]
"""Outlines of one object, each as [x1, y1, x2, y2, …] in pixels from the top left corner."""


class InvalidSegmentation(ValueError):
    """A segmentation that cannot be rasterized.

    Attributes:
        reason: the `Reason` for rejection, which states a meaning and a remedy.
        detail: the offending value in words, or empty.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)  # both arguments, so that pickle can restore it
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail or self.reason.meaning}"


# --- Reading ------------------------------------------------------------------------------------


@dataclass
class ReadResult:
    """Content of a file: the readable entries, and one rejection per unreadable entry."""

    instances: Instances
    rejections: list[Rejection] = field(default_factory=list)


_decode_instances = msgspec.json.Decoder(Instances).decode


def read_instances(path: Path) -> ReadResult:
    """Read a COCO instances file.

    Reads about 800 MB per second if every entry has the right types. Segmentations are not decoded:
    see `parse_segmentation`.

    Args:
        path: a JSON file in UTF-8, UTF-16 or UTF-32.

    Returns:
        The readable entries in file order. Entries with missing fields or wrong types become
        rejections (`malformed_image`, `malformed_annotation`).

    Raises:
        MissingFileError: the file does not exist.
        UserError: the file is not valid JSON, or not a COCO instances file.
    """
    content = _map(path)
    try:
        return ReadResult(_decode_instances(content))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # An entry has a wrong type, or the file uses Python's JSON dialect (NaN) or UTF-16.
        return _read_entry_by_entry(path, content[:])


class _ImageEntries(msgspec.Struct):
    images: list[dict[str, Any]]


_decode_image_entries = msgspec.json.Decoder(_ImageEntries).decode


def read_image_entries(path: Path) -> dict[int, dict[str, Any]]:
    """Read all fields of the images in a COCO instances file.

    Args:
        path: a JSON file, as for `read_instances`.

    Returns:
        The fields of each image by image id. The first entry with an id wins.

    Raises:
        MissingFileError: the file does not exist.
        UserError: the file is not valid JSON, or not a COCO instances file.
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
    """Map a file into memory; undecoded segmentations then stay in the page cache."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise MissingFileError(f"{path} not found: run `dvc repro` to create it") from None
    except ValueError:  # an empty file
        return b""


# UnicodeEncodeError: JSON can spell half a surrogate pair, UTF-8 cannot.
_WrongType = (msgspec.ValidationError, UnicodeEncodeError)


def _read_entry_by_entry(path: Path, content: bytes) -> ReadResult:
    document = load_document(path, content)
    try:
        categories = msgspec.convert(document["categories"], list[Category])
    except _WrongType as error:
        raise UserError(f"{path} is not a COCO instances file: categories: {error}") from None
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
            box = None
            if isinstance(entry, dict):
                box = possible_box(entry.get("segmentation"), entry.get("bbox"))
            defect = Defect(Reason.MALFORMED_ANNOTATION, str(error))
            result.rejections.append(
                Rejection("annotation", image_id, annotation_id, *defect, category_id, box)
            )
    return result


def load_document(path: Path | str, content: bytes) -> dict[str, Any]:
    """Parse the JSON text of a COCO instances file.

    Args:
        path: names the file in error messages.
        content: JSON in UTF-8, UTF-16 or UTF-32. NaN and infinities are accepted.

    Returns:
        The JSON object, with the lists `images`, `annotations` and `categories`. Their entries are
        not checked.

    Raises:
        UserError: the text is not valid JSON, or one of the lists is missing.
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
        raise UserError(f"{path} is not a COCO instances file: nested too deeply") from None
    except ValueError as error:  # a number with more digits than Python converts
        raise UserError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise UserError(f"{path} is not a COCO instances file: the top level is not an object")
    for key in ("images", "annotations", "categories"):
        if not isinstance(document.get(key), list):
            raise UserError(f"{path} is not a COCO instances file: it has no list `{key}`")
    return document


def _convert_annotation(entry: Any) -> Annotation:
    if isinstance(entry, dict):
        raw = {key: entry[key] for key in ("segmentation", "bbox") if key in entry}
        entry = {**entry, **{k: msgspec.Raw(json.dumps(v).encode()) for k, v in raw.items()}}
    return msgspec.convert(entry, Annotation)


def _integer(entry: Any, key: str) -> int | None:
    """`entry[key]` if it is an integer of 64 bits, else None."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if type(value) is int and abs(value) < 1 << 63 else None


# --- Validation ---------------------------------------------------------------------------------


class _RawRunLengths(msgspec.Struct):
    size: list[Int64]
    counts: list[Int64] | str


_decode_polygons = msgspec.json.Decoder(Polygons).decode
_decode_plausible_polygons = msgspec.json.Decoder(
    list[Annotated[list[Annotated[float, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=6)]]
).decode
_decode_run_lengths = msgspec.json.Decoder(_RawRunLengths).decode


def parse_segmentation(raw: msgspec.Raw, width: int, height: int) -> Polygons | RunLengths:
    """Decode an annotation's segmentation and check it against the size of the image.

    Polygons with fewer than three points are left out if the annotation has others. Polygons may
    extend beyond the image: pycocotools clips them.

    Args:
        raw: `Annotation.segmentation`.
        width: of the image, in pixels.
        height: of the image, in pixels.

    Returns:
        Polygons, or decoded run lengths. Both are safe to pass to pycocotools.

    Raises:
        InvalidSegmentation: the segmentation is missing or malformed.
    """
    return parse_and_measure(raw, width, height)[0]


def parse_and_measure(
    raw: msgspec.Raw, width: int, height: int
) -> tuple[Polygons | RunLengths, Overshoot | None]:
    """Like `parse_segmentation`; also returns how far the segmentation extends beyond the image."""
    try:
        polygons = _decode_plausible_polygons(raw)
        is_within = bool(polygons)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        content = bytes(raw).lstrip()
        if content.startswith(b"{"):
            return _parse_run_lengths(content, width, height), None
        is_within = False
    if not is_within:
        polygons = _remaining_polygons(raw)
    points, shorter = 0, min(width, height)
    for polygon in polygons:
        points += len(polygon) // 2
        if len(polygon) % 2:
            raise InvalidSegmentation(Reason.POLYGON_ODD, f"{len(polygon)} coordinates")
        if is_within and max(polygon) > shorter:  # few are
            is_within = max(polygon[0::2]) <= width and max(polygon[1::2]) <= height
    beyond = None if is_within else overshoot(polygons, width, height)
    if beyond and beyond.pixels > MAX_OUTLINE:  # pycocotools computes with integers of 32 bits
        raise InvalidSegmentation(Reason.OUT_OF_BOUNDS, f"by {beyond.pixels:.3g} pixels")
    # Measuring is slow; this upper bound rules out nearly all outlines.
    extent = max(width, height) + 2 * (beyond.pixels if beyond else ROUNDING)
    if points * extent > MAX_OUTLINE < sum(map(_outline_length, polygons)):
        raise InvalidSegmentation(Reason.OUTLINE_TOO_LONG, f"more than {MAX_OUTLINE} pixels")
    return polygons, beyond


def _remaining_polygons(raw: msgspec.Raw) -> Polygons:
    """The polygons of three points or more. Raises InvalidSegmentation where there are none."""
    try:
        polygons = _decode_polygons(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _polygons_defect(bytes(raw).lstrip()) from None
    return _without_short_polygons(polygons)


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
    """The reason why a segmentation is neither polygons nor a run-length encoding."""
    if content == b"null":
        return InvalidSegmentation(Reason.SEGMENTATION_MISSING)
    return _numbers_defect(content)


def _outline_length(polygon: list[float]) -> float:
    """Length of a closed outline in pixels; a diagonal step counts as one."""
    xs, ys = polygon[0::2], polygon[1::2]
    steps = zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
    return sum(max(abs(to_x - x), abs(to_y - y)) for x, y, to_x, to_y in steps)


def _numbers_defect(content: bytes) -> InvalidSegmentation:
    """The reason why msgspec cannot read polygons: not numbers, or numbers beyond a float."""
    try:
        msgspec.convert(json.loads(content), list[list[int | float]])
    except (msgspec.ValidationError, ValueError, RecursionError):
        return InvalidSegmentation(Reason.SEGMENTATION_MALFORMED, "not a list of lists of numbers")
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

    The format is defined by `rleFrString` of pycocotools. A character, minus 48, holds five bits of
    a number and a continuation bit, lowest bits first; numbers are sign-extended. From the fourth
    on, a number is the difference between a count and the count two places earlier.

    Args:
        text: the string `counts` of a compressed run-length encoding.

    Returns:
        The lengths of the runs, not yet checked: they may be negative.

    Raises:
        InvalidSegmentation: the string is malformed; pycocotools would read past its end or
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
    """Map each category id to the ids of the images that show the category."""
    images_of: dict[int, set[int]] = defaultdict(set)
    for annotation in annotations:
        images_of[annotation.category_id].add(annotation.image_id)
    return images_of


def rarest_class_by_image(images_of: Mapping[int, Set[int]]) -> dict[int, int]:
    """Map each image id to its rarest category: the one in the fewest images, then the lowest id.

    Args:
        images_of: the image ids of each category, as `images_by_class` returns them.
    """
    rarest_last = sorted(images_of, key=lambda c: (len(images_of[c]), c), reverse=True)
    return {image_id: category for category in rarest_last for image_id in images_of[category]}
