"""Thumbnails of images with masks, and of rejected annotations, even malformed ones."""

import json
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from cocoseg.core.drawing import RGBImage, overlay_labels
from cocoseg.core.labels import Labels

Outline = list[tuple[float, float]]
"""Points (x, y) in pixels."""

THUMBNAIL = (400, 300)
"""The largest width and height of a thumbnail in pixels."""

_INVALID, _HALO = (214, 40, 40), (255, 255, 255)
_NO_IMAGE = (70, 76, 84)
_OUTSIDE = (203, 208, 214)


def draw_annotated(
    image: RGBImage,
    labels: Labels,
    box: tuple[int, int, int, int] | None = None,
) -> RGBImage:
    """Draw a thumbnail of an image with its labels.

    Args:
        image: uint8 (h, w, 3), possibly smaller than the labels.
        labels: uint8 (H, W).
        box: left, top, right and bottom of the crop to draw, in pixels of the labels; the whole
            image by default.
    """
    height, width = labels.shape
    box = box or (0, 0, width, height)
    x_scale, y_scale = image.shape[1] / width, image.shape[0] / height
    size = thumbnail_size(box[2] - box[0], box[3] - box[1])
    crop = box[0] * x_scale, box[1] * y_scale, box[2] * x_scale, box[3] * y_scale
    thumbnail = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS, crop)
    mask = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST, box)
    return overlay_labels(np.asarray(thumbnail), np.asarray(mask), opacity=0.35)


def draw_dropped(
    width: int,
    height: int,
    *,
    image: RGBImage | None = None,
    labels: Labels | None = None,
    outlines: Sequence[Outline] = (),
) -> RGBImage:
    """Draw a thumbnail of an image with rejected annotations.

    Args:
        width: the width of the image in pixels.
        height: its height.
        image: uint8 (h, w, 3) of any size; a dark area by default.
        labels: uint8 (height, width), drawn over the image.
        outlines: drawn in red with a dot at each point, up to half an image beyond its edges.
    """
    xs = [min(max(x, -width / 2), width * 1.5) for outline in outlines for x, _ in outline]
    ys = [min(max(y, -height / 2), height * 1.5) for outline in outlines for _, y in outline]
    left, top = min([0.0, *xs]), min([0.0, *ys])
    right, bottom = max([float(width), *xs]), max([float(height), *ys])
    size = thumbnail_size(right - left, bottom - top)
    scale = size[0] / (right - left)
    page = Image.new("RGB", size, _OUTSIDE)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    if image is None:
        drawn = Image.new("RGB", inner, _NO_IMAGE)
    else:
        drawn = Image.fromarray(image).resize(inner, Image.Resampling.LANCZOS)
    if labels is not None:
        mask = Image.fromarray(labels).resize(inner, Image.Resampling.NEAREST)
        drawn = Image.fromarray(overlay_labels(np.asarray(drawn), np.asarray(mask)))
    page.paste(drawn, (round(-left * scale), round(-top * scale)))
    draw = ImageDraw.Draw(page)
    for outline in outlines:
        points = [
            (
                (min(max(x, left), right) - left) * scale,
                (min(max(y, top), bottom) - top) * scale,
            )
            for x, y in outline
        ]
        for color, radius in ((_HALO, 4), (_INVALID, 3)):
            draw.line([*points, points[0]], color, width=2 * radius - 3, joint="curve")
            for x, y in points:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), color)
    return np.asarray(page)


def outlines_in(segmentation: bytes) -> list[Outline]:
    """Find the points to draw for a segmentation that may be malformed.

    Args:
        segmentation: JSON, possibly invalid.

    Returns:
        The points of each polygon whose coordinates are both finite numbers; empty for a
        run-length encoding.
    """
    try:
        polygons = json.loads(segmentation)
    except (ValueError, RecursionError):
        return []
    outlines = []
    for polygon in polygons if isinstance(polygons, list) else []:
        numbers = polygon if isinstance(polygon, list) else []
        pairs = zip(numbers[0::2], numbers[1::2], strict=False)
        outline = [(x, y) for x, y in pairs if _is_coordinate(x) and _is_coordinate(y)]
        if outline:
            outlines.append(outline)
    return outlines


def _is_coordinate(value: object) -> bool:
    # The comparison also handles NaN and integers that are too large for a float.
    return type(value) in (int, float) and abs(value) < 1e9  # type: ignore[arg-type]


def thumbnail_size(width: float, height: float) -> tuple[int, int]:
    """Scale a width and a height to fit THUMBNAIL; small images are upsampled."""
    scale = min(THUMBNAIL[0] / width, THUMBNAIL[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
