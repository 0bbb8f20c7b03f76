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
    """The box of the pixels that an annotation may cover, even if it is not valid.

    Args:
        segmentation: its segmentation: polygons, a run-length encoding, or anything else.
        bbox: its box (left, top, width, height) in pixels, or anything else.
        width: of the image, in pixels.
        height: of the image, in pixels.

    Returns:
        The bounds of its outline if that has three points or more and all coordinates are finite,
        else its box, else the bounds of the finite coordinates; None if they have no area. Clipped
        to the image, so that it may be empty.
    """
    outlines = list(_outlines(segmentation))
    pairs = [pair for o in outlines for pair in zip(o[0::2], o[1::2], strict=False)]
    points = [(x, y) for x, y in pairs if _is_number(x) and _is_number(y)]
    is_known = len(points) >= 3 and 2 * len(points) == sum(map(len, outlines))
    is_box = (
        isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_number, bbox)) and all(bbox[2:])
    )
    if is_box and not is_known:
        left, top, box_width, box_height = bbox
        points = [(left, top), (left + box_width, top + box_height)]
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    if min(xs) == max(xs) or min(ys) == max(ys):
        return None
    return (
        max(0, math.floor(min(xs))),
        max(0, math.floor(min(ys))),
        min(width, math.ceil(max(xs))),
        min(height, math.ceil(max(ys))),
    )


def _outlines(segmentation: Any) -> Iterator[list[Any]]:
    """The innermost lists; run-length encodings say nothing about bounds."""
    parts = [segmentation]  # no recursion: nesting may be deep
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            yield [value for value in part if not isinstance(value, list | dict)]
            parts += part


def _is_number(value: Any) -> bool:
    # Comparing is safe with NaN, and with integers that no float holds.
    return type(value) in (int, float) and abs(value) < 1e9


def parse_json(raw: Any) -> Any:
    """The value of JSON given as bytes; None if it has none."""
    try:
        return json.loads(bytes(raw))
    except (ValueError, RecursionError):
        return None
