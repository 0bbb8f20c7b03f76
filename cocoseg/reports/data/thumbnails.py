"""Small pictures of annotations: masks on photos, and what was dropped, broken as it may be."""

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cocoseg.core.drawing import RGBImage, overlay_labels

Outline = list[tuple[float, float]]
"""Points (x, y) in pixels."""

THUMBNAIL = (400, 300)
"""The width and height into which thumbnails fit, in pixels."""

_WRONG, _HALO = (214, 40, 40), (255, 255, 255)
_UNKNOWN = (70, 76, 84)
_BEYOND = (203, 208, 214)


def draw_annotated(
    photo: RGBImage,
    labels: NDArray[np.uint8],
    box: tuple[int, int, int, int] | None = None,
) -> RGBImage:
    """A thumbnail of a photo, or of a part of it, with its labels (H, W) over it.

    The photo may have been read at a reduced size. `box` is the part's left, top, right and bottom
    in pixels of the labels.
    """
    height, width = labels.shape
    box = box or (0, 0, width, height)
    x_scale, y_scale = photo.shape[1] / width, photo.shape[0] / height
    size = thumbnail_size(box[2] - box[0], box[3] - box[1])
    part = box[0] * x_scale, box[1] * y_scale, box[2] * x_scale, box[3] * y_scale
    shown = Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS, part)
    over = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST, box)
    return overlay_labels(np.asarray(shown), np.asarray(over), opacity=0.35)


def draw_dropped(
    width: int,
    height: int,
    *,
    photo: RGBImage | None = None,
    labels: NDArray[np.uint8] | None = None,
    outlines: Sequence[Outline] = (),
) -> RGBImage:
    """A thumbnail of what was dropped of an image of this size in pixels.

    Without its photo, the image is a dark area; labels (H, W) are painted over it, and outlines are
    drawn in red, up to half an image beyond its borders.
    """
    xs = [min(max(x, -width / 2), width * 1.5) for outline in outlines for x, _ in outline]
    ys = [min(max(y, -height / 2), height * 1.5) for outline in outlines for _, y in outline]
    left, top = min([0.0, *xs]), min([0.0, *ys])
    right, bottom = max([float(width), *xs]), max([float(height), *ys])
    size = thumbnail_size(right - left, bottom - top)
    scale = size[0] / (right - left)
    page = Image.new("RGB", size, _BEYOND)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    if photo is None:
        picture = Image.new("RGB", inner, _UNKNOWN)
    else:
        picture = Image.fromarray(photo).resize(inner, Image.Resampling.LANCZOS)
    if labels is not None:
        over = Image.fromarray(labels).resize(inner, Image.Resampling.NEAREST)
        picture = Image.fromarray(overlay_labels(np.asarray(picture), np.asarray(over)))
    page.paste(picture, (round(-left * scale), round(-top * scale)))
    draw = ImageDraw.Draw(page)
    for outline in outlines:
        points = [
            (
                (min(max(x, left), right) - left) * scale,
                (min(max(y, top), bottom) - top) * scale,
            )
            for x, y in outline
        ]
        for color, radius in ((_HALO, 4), (_WRONG, 3)):
            draw.line([*points, points[0]], color, width=2 * radius - 3, joint="curve")
            for x, y in points:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), color)
    return np.asarray(page)


def outlines_in(segmentation: bytes) -> list[Outline]:
    """What can be drawn of polygons that are not valid, given as JSON: their points that are two
    finite numbers. Nothing of a run-length encoding."""
    try:
        polygons = json.loads(segmentation)
    except (ValueError, RecursionError):
        return []
    outlines = []
    for polygon in polygons if isinstance(polygons, list) else []:
        numbers = polygon if isinstance(polygon, list) else []
        pairs = zip(numbers[0::2], numbers[1::2], strict=False)
        outline = [(x, y) for x, y in pairs if _is_place(x) and _is_place(y)]
        if outline:
            outlines.append(outline)
    return outlines


def _is_place(value: object) -> bool:
    # Comparing is safe with NaN, and with whole numbers that no float holds.
    return type(value) in (int, float) and abs(value) < 1e9  # type: ignore[arg-type]


def thumbnail_size(width: float, height: float) -> tuple[int, int]:
    """The size in pixels at which a picture fits into THUMBNAIL; smaller ones are enlarged."""
    scale = min(THUMBNAIL[0] / width, THUMBNAIL[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
