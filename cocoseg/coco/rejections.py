"""Reasons for rejecting an image or an annotation of a COCO file.

`data/rejected.csv` lists the rejected entries, `metrics/filter.json` counts them by reason, the
data page shows examples, and docs/your-data.md lists the reasons.
"""

import csv
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file

if TYPE_CHECKING:
    from cocoseg.coco.instances import Annotation, ImageRecord, Instances


class Reason(StrEnum):
    """A reason for rejection.

    Attributes:
        value: the name in files.
        meaning: what is wrong, in one sentence.
        remedy: what to do, in one sentence.
    """

    meaning: str
    remedy: str

    def __new__(cls, value: str, meaning: str, remedy: str) -> "Reason":
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.remedy = remedy
        return member

    # Images that are not selected. Their annotations are rejected for the same reason.
    NO_SELECTED_CLASS = (
        "no_selected_class",
        "The image has no annotation of a selected class.",
        "Add classes to `filter.classes`, or keep such images with `filter.empty_fraction`.",
    )
    NO_VALID_ANNOTATION = (
        "no_valid_annotation",
        "The image has annotations of the selected classes, but none is valid.",
        "See the reasons for its annotations.",
    )
    TOO_MANY_INSTANCES = (
        "too_many_instances",
        "The image has more valid annotations than `filter.max_instances`.",
        "Raise `filter.max_instances`.",
    )
    OVER_MAX_IMAGES = (
        "over_max_images",
        "More images qualify than `filter.max_images`, and `filter.prefer` chose others.",
        "Raise `filter.max_images`.",
    )
    OVER_EMPTY_FRACTION = (
        "over_empty_fraction",
        "No annotation of the selected classes, and `filter.empty_fraction` is reached.",
        "Raise `filter.empty_fraction`.",
    )
    EXCLUDED = (
        "excluded",
        "The file of `filter.exclude` lists the image, the annotation, or all valid annotations "
        "of the image.",
        "Remove the row from that file.",
    )
    # Images without a usable file.
    IMAGE_NOT_FOUND = (
        "image_not_found",
        "No image file matches the file name.",
        "Add the file, or correct `images` in `download.files.pairs`.",
    )
    IMAGE_AMBIGUOUS = (
        "image_ambiguous",
        "Several files match the file name, or several entries match the same file.",
        "Make the paths in the annotations unique.",
    )
    IMAGE_DAMAGED = (
        "image_damaged",
        "The image file cannot be decoded.",
        "Replace the file.",
    )
    IMAGE_SIZE = (
        "image_size",
        "The size of the image file differs from the size in its entry.",
        "Use the images that were annotated, not resized copies.",
    )
    ORIENTATION_UNKNOWN = (
        "orientation_unknown",
        "EXIF rotates or mirrors the image, and its entry does not show whether the annotations "
        "follow the stored or the displayed pixels.",
        "Apply the EXIF orientation to the pixels, then export again.",
    )
    SIZE_MISSING = (
        "size_missing",
        "The entry has no width and height, and the image is not in a local directory.",
        "Add `width` and `height`, or copy the images into a local directory.",
    )
    # Images with an unusable entry.
    MALFORMED_IMAGE = (
        "malformed_image",
        "A field of the image is missing or has the wrong type, or the size is below 1 pixel.",
        "Correct the entry.",
    )
    IMAGE_TOO_LARGE = (
        "image_too_large",
        "The image has more than 67,108,864 pixels (8,192 x 8,192).",
        "Cut the image into tiles, or scale it down together with its annotations.",
    )
    UNSAFE_FILE_NAME = (
        "unsafe_file_name",
        "The file name contains a directory or characters that some file systems reject, or is "
        "longer than 200 bytes.",
        "Rename the file.",
    )
    DUPLICATE_IMAGE = (
        "duplicate_image",
        "Another image has the same id, or the same file name apart from case and extension.",
        "Give each image a unique id and file name.",
    )
    # Annotations.
    UNKNOWN_IMAGE = (
        "unknown_image",
        "The file has no image with the `image_id` of the annotation, or that image is unusable.",
        "Correct `image_id`, or see the reason for the image.",
    )
    UNKNOWN_CATEGORY = (
        "unknown_category",
        "No category has the `category_id` of this annotation.",
        "Correct `category_id`, or add the category.",
    )
    DUPLICATE_ANNOTATION = (
        "duplicate_annotation",
        "An earlier annotation has the same id.",
        "Give each annotation a unique id.",
    )
    MALFORMED_ANNOTATION = (
        "malformed_annotation",
        "A field of the annotation is missing or has the wrong type.",
        "Correct the entry.",
    )
    BBOX_ONLY = (
        "bbox_only",
        "The annotation has a bounding box but no outline.",
        "Export polygons or masks.",
    )
    SEGMENTATION_MISSING = (
        "segmentation_missing",
        "The annotation has no segmentation.",
        "Export polygons or masks.",
    )
    SEGMENTATION_EMPTY = (
        "segmentation_empty",
        "The segmentation is empty.",
        "Export polygons or masks.",
    )
    SEGMENTATION_MALFORMED = (
        "segmentation_malformed",
        "The segmentation is neither polygons nor a run-length encoding.",
        "Correct the segmentation.",
    )
    POLYGON_ODD = (
        "polygon_odd",
        "A polygon has an odd number of coordinates.",
        "Correct the polygon.",
    )
    POLYGON_TOO_SHORT = (
        "polygon_too_short",
        "No polygon of the annotation has three points.",
        "Remove the annotation, or add points.",
    )
    OUT_OF_BOUNDS = (
        "out_of_bounds",
        "The outline extends beyond the image.",
        "Set `filter.out_of_bounds: clip`; check that the entry has the size of the image.",
    )
    COORDINATE_NOT_FINITE = (
        "coordinate_not_finite",
        "A coordinate is not a finite number.",
        "Correct the coordinate.",
    )
    OUTLINE_TOO_LONG = (
        "outline_too_long",
        "The outline is longer than 1,048,576 pixels.",
        "Simplify the outline.",
    )
    RLE_MALFORMED = (
        "rle_malformed",
        "A field of the run-length encoding is missing or has the wrong type.",
        "Export the mask again.",
    )
    RLE_SIZE = (
        "rle_size",
        "The size of the run-length encoding differs from the size of the image.",
        "Export the mask at the size of the image.",
    )
    RLE_COUNTS = (
        "rle_counts",
        "The counts of the run-length encoding are invalid or do not fill the image.",
        "Export the mask again.",
    )


UNUSABLE_IMAGES = frozenset(
    {
        Reason.IMAGE_NOT_FOUND,
        Reason.IMAGE_AMBIGUOUS,
        Reason.IMAGE_DAMAGED,
        Reason.IMAGE_SIZE,
        Reason.ORIENTATION_UNKNOWN,
        Reason.SIZE_MISSING,
        Reason.MALFORMED_IMAGE,
        Reason.IMAGE_TOO_LARGE,
        Reason.UNSAFE_FILE_NAME,
        Reason.DUPLICATE_IMAGE,
    }
)
"""Reasons that concern the file or the entry of an image, not the user's selection."""


class Defect(NamedTuple):
    """A reason for rejection, with the offending value in words."""

    reason: Reason
    detail: str = ""


class Rejection(msgspec.Struct, gc=False):
    """A rejected entry of a COCO file.

    Attributes:
        kind: the list that the entry belongs to, in the singular.
        image_id: the id of the image, or the image id of the annotation; None if unreadable.
        annotation_id: none for images, and if unreadable.
        reason: why the entry is rejected.
        detail: the offending value in words, or empty.
        category_id: the category of an unreadable annotation if it is known, else None. `select`
            needs it to ignore other classes; `data/rejected.csv` does not contain it.
    """

    kind: Literal["image", "annotation"]
    image_id: int | None
    annotation_id: int | None
    reason: Reason
    detail: str = ""
    category_id: int | None = None
    box: tuple[int, int, int, int] | None = None
    """The pixels that a rejected annotation may cover, where they are known."""


def invalid_annotations(rejections: Sequence[Rejection]) -> list[Rejection]:
    """Select the annotations that are rejected because they are invalid themselves.

    Annotations that share the reason of their rejected image are left out, and so are excluded
    annotations.
    """
    by_image = {r.image_id: r.reason for r in rejections if r.kind == "image"}
    return [
        r
        for r in rejections
        if r.kind == "annotation" and r.reason not in (Reason.EXCLUDED, by_image.get(r.image_id))
    ]


COLUMNS = (
    "image_id",
    "annotation_id",
    "reason",
    "detail",
    "file_name",
    "category",
    "annotation_file",
    "source_image_id",
    "source_annotation_id",
)
"""Columns of `data/rejected.csv`. The first two ids are those of `filter.exclude`, the last two are
those of `annotation_file`."""


def write_rejections(path: Path, rejections: Sequence[Rejection], instances: "Instances") -> None:
    """Write a CSV file with one row per rejection and the columns COLUMNS.

    Unknown values are empty; so is the annotation id of images.

    Args:
        path: the file.
        rejections: the rows.
        instances: the entries from which they are rejected.
    """
    ids = {r.annotation_id for r in rejections}
    annotations: dict[int | None, Annotation] = {
        a.id: a for a in instances.annotations if a.id in ids
    }
    images: dict[int | None, ImageRecord] = {image.id: image for image in instances.images}
    names: dict[int | None, str] = {category.id: category.name for category in instances.categories}
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for r in rejections:
            image = images.get(r.image_id)
            annotation = annotations.get(r.annotation_id)
            category_id = annotation.category_id if annotation else r.category_id
            source_image_id: int | str | None = None
            source_annotation_id: int | str | None = None
            if image:
                source_image_id = image.id if image.source_id is None else image.source_id
            if annotation:
                source_annotation_id = annotation.id
                if not isinstance(annotation.source_id, msgspec.UnsetType):
                    source_annotation_id = annotation.source_id
            writer.writerow(
                [
                    r.image_id,
                    r.annotation_id,
                    r.reason,
                    r.detail,
                    _printable(image.file_name if image else ""),
                    _printable(names.get(category_id, "")),
                    _printable(image.annotation_file if image else ""),
                    _printable(source_image_id),
                    _printable(source_annotation_id),
                ]
            )


def _printable(value: object) -> object:
    """Escape what UTF-8 or CSV cannot hold, such as half a surrogate pair or a carriage return."""
    is_printable = not isinstance(value, str) or value.isprintable()
    return value if is_printable else ascii(value)[1:-1]


def read_rejections(path: Path) -> list[Rejection]:
    """Read a file that `write_rejections` wrote; `category_id` is None in all rejections.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_read_row(row) for row in csv.DictReader(file)]
    except (csv.Error, KeyError, TypeError, ValueError):
        raise UserError(f"{path} is damaged: remove it, then run `dvc repro`") from None


def _read_row(row: dict[str, str]) -> Rejection:
    image_id, annotation_id = (
        int(row[key]) if row[key] else None for key in ("image_id", "annotation_id")
    )
    reason = Reason(row["reason"])  # type: ignore[call-arg]
    # Only a malformed annotation can lack an id.
    of_image = annotation_id is None and reason is not Reason.MALFORMED_ANNOTATION
    return Rejection(
        "image" if of_image else "annotation", image_id, annotation_id, reason, row["detail"]
    )
