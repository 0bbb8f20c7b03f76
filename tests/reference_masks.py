"""Reference implementations of the rules for overlaps and crowds: slow and independent."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoseg.coco.rasterize import Crowd, Overlap

OVERLAPS: list[Overlap] = ["last", "small", "ignore"]
CROWDS: list[Crowd] = ["ignore", "paint", "drop"]


def render(
    regions: list[tuple[NDArray[Any], int, bool]],
    shape: tuple[int, int],
    overlap: Overlap,
    crowd: Crowd,
) -> NDArray[Any]:
    """Decide each pixel by the regions that cover it; a region is (mask, label, is crowd)."""
    labels = np.zeros(shape, np.uint8)
    areas = [int(mask.sum()) for mask, _, _ in regions]
    covered = np.zeros(shape, bool)
    for mask, _, _ in regions:
        covered |= mask.astype(bool)
    for y, x in np.argwhere(covered):
        over = [n for n, (mask, _, _) in enumerate(regions) if mask[y, x]]
        crowds = [n for n in over if regions[n][2]]
        instances = over if crowd == "paint" else [n for n in over if n not in crowds]
        if not instances:
            labels[y, x] = 255 if crowds and crowd == "ignore" else 0
        elif overlap == "ignore" and len(instances) > 1:
            labels[y, x] = 255
        elif overlap == "small":
            smallest = min(areas[n] for n in instances)
            labels[y, x] = regions[max(n for n in instances if areas[n] == smallest)][1]
        else:
            labels[y, x] = regions[instances[-1]][1]
    return labels


def render_whole(
    regions: list[tuple[NDArray[Any], int, bool]],
    shape: tuple[int, int],
    overlap: Overlap,
    crowd: Crowd,
) -> NDArray[Any]:
    """Render like `render`, but whole masks at once: fast enough for large images."""
    labels = np.zeros(shape, np.uint8)
    instances = [(mask, label) for mask, label, is_crowd in regions if not is_crowd]
    if crowd == "paint":
        instances = [(mask, label) for mask, label, _ in regions]
    if crowd == "ignore":
        for mask, _, is_crowd in regions:
            if is_crowd:
                labels[mask == 1] = 255
    order = list(range(len(instances)))
    if overlap == "small":
        order.sort(key=lambda n: (-int(instances[n][0].sum()), n))
    for n in order:
        labels[instances[n][0] == 1] = instances[n][1]
    if overlap == "ignore" and instances:
        labels[sum(mask.astype(int) for mask, _ in instances) > 1] = 255
    return labels
