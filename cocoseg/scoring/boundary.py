"""How well outlines are met: boundary IoU.

Cheng, Girshick, Dollár, Berg and Kirillov, "Boundary IoU: Improving Object-Centric Image
Segmentation Evaluation", 2021. IoU hardly notices a coarse outline around a large object; boundary
IoU compares only the pixels of truth and prediction that lie close to the outline of each.
"""

import numpy as np
from numpy.typing import NDArray

from cocoseg.common.labels import VOID, Labels

OUTSIDE = 256
"""A label that no pixel has, for what lies beyond the image."""


def boundary_width(height: int, width: int) -> int:
    """How far from an outline a pixel counts: 2% of the image's diagonal, at least one pixel."""
    return max(1, round(0.02 * float(np.hypot(height, width))))


def near_outline(labels: Labels, distance: int) -> NDArray[np.bool_]:
    """Which pixels of labels (H, W) have another label within `distance` rows and columns.

    Boolean (H, W). For each class these are its pixels that `distance` erosions with a 3x3 square
    would take, as in the paper's own code; the image's border is an outline like any other.
    """
    padded = np.pad(labels.astype(np.int16), distance, constant_values=OUTSIDE)
    inner = padded[:, distance:-distance]
    # A square is all one label if each of its rows is, and its middle column too.
    row_changes = _any_in_window(padded[:, 1:] != padded[:, :-1], 2 * distance, axis=1)
    column_changes = _any_in_window(inner[1:] != inner[:-1], 2 * distance, axis=0)
    return _any_in_window(row_changes, 2 * distance + 1, axis=0) | column_changes


def _any_in_window(flags: NDArray[np.bool_], length: int, axis: int) -> NDArray[np.bool_]:
    """Whether any of `length` neighbours along an axis is set; shorter by `length` - 1."""
    start = [(0, 0), (0, 0)]
    start[axis] = (1, 0)
    sums = np.cumsum(np.pad(flags, start), axis=axis, dtype=np.int32)
    first, last = (slice(None),) * axis, sums.shape[axis]
    return sums[(*first, slice(length, last))] > sums[(*first, slice(0, last - length))]


def count_boundaries(truth: Labels, prediction: Labels, classes: int) -> NDArray[np.int64]:
    """Pixels near the outlines of each class: (classes, 2) intersections and unions.

    `truth` and `prediction` are (H, W). Void pixels belong to no class, in the prediction neither.
    Summed over images, a ratio of the two is the boundary IoU.
    """
    distance = boundary_width(*truth.shape)
    prediction = np.where(truth == VOID, VOID, prediction)
    near_truth = near_outline(truth, distance)
    near_prediction = near_outline(prediction, distance)
    both = near_truth & near_prediction & (truth == prediction)
    in_truth, in_prediction, intersection = (
        np.bincount(labels, minlength=VOID + 1)[:classes]
        for labels in (truth[near_truth], prediction[near_prediction], truth[both])
    )
    return np.stack([intersection, in_truth + in_prediction - intersection], axis=1)
