"""Outlines of pixels as polygons that cover exactly these pixels.

The vertices are corners of pixels, so that pycocotools rasterizes a polygon to exactly the pixels
from which it was made. COCO polygons have no holes: each hole is joined to the outline by a slit
without width.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Ring = NDArray[np.int64]
"""The vertices (x, y) of a closed outline, int64 (N, 2)."""

_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # right, down, left, up


def component_polygons(region: NDArray[np.bool_]) -> Iterator[list[float]]:
    """Yield a polygon x1, y1, x2, y2, … for each connected component of a region, boolean (H, W).

    Pixels are connected if they share a side.
    """
    components, _ = ndimage.label(region)
    for number, window in enumerate(ndimage.find_objects(components), start=1):
        rings = _rings(components[window] == number)
        offset = window[1].start, window[0].start
        yield (_joined(rings) + offset).ravel().astype(float).tolist()


def _rings(component: NDArray[np.bool_]) -> list[Ring]:
    """The outline of a connected component, then those of its holes.

    Rings follow the sides of pixels, with the component on their right.
    """
    padded = np.pad(component, 1).astype(np.int8)
    down, right = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    # The directions in which sides leave a corner (y, x): at most two, at diagonal contacts.
    leaving: dict[tuple[int, int], list[int]] = {}
    for direction, (sides, value) in enumerate(((down, 1), (right, -1), (down, -1), (right, 1))):
        ys, xs = np.nonzero(sides == value)
        # A side's index is its upper left end; sides to the left and up start at the other end.
        ys, xs = ys + (direction == 3), xs + (direction == 2)
        for corner in zip(ys.tolist(), xs.tolist(), strict=True):
            leaving.setdefault(corner, []).append(direction)
    rings = []
    while leaving:
        corner = min(leaving)  # the first is on the outline
        direction = leaving[corner][0]
        vertices: list[tuple[int, int]] = []
        while corner in leaving:
            choices = leaving[corner]
            # Turning right keeps pixels apart that only touch at a corner.
            turn = min(choices, key=lambda choice: (direction + 1 - choice) % 4)
            if turn != direction or not vertices:
                vertices.append((corner[1], corner[0]))
            choices.remove(turn)
            if not choices:
                del leaving[corner]
            direction = turn
            step = _STEPS[direction]
            corner = corner[0] + int(step[1]), corner[1] + int(step[0])
            if corner[::-1] == vertices[0]:
                break
        rings.append(np.array(vertices))
    return rings


def _joined(rings: list[Ring]) -> Ring:
    """One closed outline: the first ring with a slit to each other and back."""
    outline, *holes = rings
    for hole in holes:
        distances = np.abs(outline[:, None] - hole[None]).sum(axis=2)
        at, start = np.unravel_index(distances.argmin(), distances.shape)
        detour = np.concatenate([np.roll(hole, -start, axis=0), hole[start : start + 1]])
        outline = np.concatenate([outline[: at + 1], detour, outline[at:]])
    return outline
