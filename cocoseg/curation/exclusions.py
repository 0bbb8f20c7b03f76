"""Images and annotations that a user excludes: the file of `filter.exclude`."""

import csv
import logging
from collections.abc import Set
from pathlib import Path

from cocoseg.coco.instances import ReadResult
from cocoseg.core.errors import UserError

logger = logging.getLogger(__name__)

Exclusion = tuple[int, int | None]
"""The id of an image, and the id of one of its annotations or None for the whole image."""


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


def read_exclusions(path: Path) -> set[Exclusion]:
    """Read the images and annotations that a user excludes.

    Args:
        path: CSV file in UTF-8 whose first two columns are `image_id` and `annotation_id`. A row
            without an annotation id excludes the whole image. Further columns are ignored, so that
            rows of `metrics/label_errors.csv` and `data/rejected.csv` can be copied unchanged.

    Returns:
        The ids of each row.

    Raises:
        UserError: the file is missing, or a row has no ids; the message names the line.
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
