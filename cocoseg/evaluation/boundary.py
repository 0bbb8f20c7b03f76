"""Boundary IoU: the IoU of the pixels close to an outline.

Cheng, Girshick, Dollár, Berg and Kirillov, "Boundary IoU: Improving Object-Centric Image
Segmentation Evaluation", 2021. A coarse outline of a large object hardly changes the IoU, but does
change the boundary IoU.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from cocoseg.core.labels import IGNORE_INDEX, Labels

OUTSIDE = 256
"""The label outside of the image; no pixel has it."""


def boundary_width(height: int, width: int) -> int:
    """The distance from an outline in pixels: 2% of the image's diagonal, at least 1."""
    return max(1, round(0.02 * float(np.hypot(height, width))))


def near_outline(labels: Labels, distance: int) -> NDArray[np.bool_]:
    """Find the pixels that have a different label nearby.

    For each class these are the pixels that `distance` erosions with a 3x3 square remove, as in
    the paper's own code. The border of the image is an outline too.

    Args:
        labels: uint8 (H, W).
        distance: the largest distance in rows and in columns.

    Returns:
        bool (H, W).
    """
    window = {"size": 2 * distance + 1, "mode": "constant", "cval": OUTSIDE}
    labels = labels.astype(np.int16)
    near: NDArray[np.bool_] = maximum_filter(labels, **window) != minimum_filter(labels, **window)
    return near


def count_boundaries(ground_truth: Labels, prediction: Labels, classes: int) -> NDArray[np.int64]:
    """Count the pixels near the outlines of each class in one image.

    Pixels that the ground truth ignores are ignored in the prediction as well.

    Args:
        ground_truth: uint8 (H, W).
        prediction: uint8 (H, W).
        classes: the number of classes.

    Returns:
        Intersections and unions, int64 (classes, 2). Boundary IoU is the ratio of their sums over
        the images.
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
