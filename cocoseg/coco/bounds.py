"""Where annotations are: how far beyond the image, and which pixels an invalid one may cover."""

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cocoseg.coco.instances import Polygons, RunLengths

ROUNDING = 0.01
"""Coordinates beyond the image by at most this many pixels are rounding noise."""

UNKNOWN_SIZE = 1 << 30

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in whole pixels; right and bottom are exclusive."""


class Overshoot(NamedTuple):
    """How far an outline extends beyond its image, and the same as a fraction of that side."""

    pixels: float
    fraction: float


def overshoot(segmentation: "Polygons | RunLengths", width: int, height: int) -> Overshoot | None:
    """How far a segmentation extends beyond an image of this size in pixels.

    None where it does not: polygons within ROUNDING, and every run-length encoding.
    """
    if not isinstance(segmentation, list):
        return None
    shorter = min(width, height)
    horizontal = vertical = 0.0
    for polygon in segmentation:
        if min(polygon) < 0 or max(polygon) > shorter:  # most are not
            xs, ys = polygon[0::2], polygon[1::2]
            horizontal = max(horizontal, -min(xs), max(xs) - width)
            vertical = max(vertical, -min(ys), max(ys) - height)
    largest = max(horizontal, vertical)
    if round(largest, 6) <= ROUNDING:  # 20.01 - 20 is slightly more than 0.01
        return None
    return Overshoot(largest, max(horizontal / width, vertical / height))


def possible_box(
    segmentation: Any, bbox: Any, width: int = UNKNOWN_SIZE, height: int = UNKNOWN_SIZE
) -> Box | None:
    """The box of the pixels that an annotation may cover, even where it is not valid.

    Args:
        segmentation: Its segmentation: polygons, a run-length encoding, or anything else.
        bbox: Its box (left, top, width, height) in pixels, or anything else.
        width: Of the image, in pixels.
        height: Of the image, in pixels.

    Returns:
        The bounds of its outline if all coordinates are finite, else its box, else the bounds of
        the finite coordinates; None where nothing is known. Clipped to the image, so that it may be
        empty.
    """
    outline = list(_coordinates(segmentation))
    numbers = [value for value in outline if _is_number(value)]
    points = list(zip(numbers[0::2], numbers[1::2], strict=False))
    is_known = points and len(numbers) == len(outline) and len(outline) % 2 == 0
    is_box = isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_number, bbox))
    if is_box and not is_known:
        left, top, box_width, box_height = bbox
        points = [(left, top), (left + box_width, top + box_height)]
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    return (
        max(0, math.floor(min(xs))),
        max(0, math.floor(min(ys))),
        min(width, math.ceil(max(xs))),
        min(height, math.ceil(max(ys))),
    )


def _coordinates(value: Any) -> Iterator[Any]:
    """The values in nested lists; those of a run-length encoding say nothing about bounds."""
    if isinstance(value, list):
        for part in value:
            yield from _coordinates(part)
    elif not isinstance(value, dict) and value is not None:
        yield value


def _is_number(value: Any) -> bool:
    # Comparing is safe with NaN, and with integers that no float holds.
    return type(value) in (int, float) and abs(value) < 1e9


def parse_json(raw: Any) -> Any:
    """The value of JSON given as bytes; None if it has none."""
    try:
        return json.loads(bytes(raw))
    except (ValueError, RecursionError):
        return None
