"""How well outlines are met: boundary IoU.

Cheng, Girshick, Dollár, Berg and Kirillov, "Boundary IoU: Improving Object-Centric Image
Segmentation Evaluation", 2021. IoU hardly notices a coarse outline around a large object; boundary
IoU compares only the pixels of truth and prediction that lie close to the outline of each.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from cocoseg.core.labels import IGNORE_INDEX, Labels

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
    window = {"size": 2 * distance + 1, "mode": "constant", "cval": OUTSIDE}
    labels = labels.astype(np.int16)
    near: NDArray[np.bool_] = maximum_filter(labels, **window) != minimum_filter(labels, **window)
    return near


def count_boundaries(ground_truth: Labels, prediction: Labels, classes: int) -> NDArray[np.int64]:
    """Pixels near the outlines of each class: (classes, 2) intersections and unions.

    `truth` and `prediction` are (H, W). Void pixels belong to no class, in the prediction neither.
    Summed over images, a ratio of the two is the boundary IoU.
    """
    distance = boundary_width(*ground_truth.shape)
    prediction = np.where(ground_truth == IGNORE_INDEX, IGNORE_INDEX, prediction)
    near_ground_truth = near_outline(ground_truth, distance)
    near_prediction = near_outline(prediction, distance)
    both = near_ground_truth & near_prediction & (ground_truth == prediction)
    in_ground_truth, in_prediction, intersection = (
        np.bincount(labels, minlength=IGNORE_INDEX + 1)[:classes]
        for labels in (
            ground_truth[near_ground_truth],
            prediction[near_prediction],
            ground_truth[both],
        )
    )
    return np.stack([intersection, in_ground_truth + in_prediction - intersection], axis=1)
