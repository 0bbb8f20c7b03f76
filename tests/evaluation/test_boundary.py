"""Boundary IoU."""

import numpy as np
from numpy.typing import NDArray

from cocoseg.core.labels import IGNORE_INDEX
from cocoseg.evaluation.boundary import boundary_width, count_boundaries, near_outline
from tests.samples import random_masks


def erode(mask: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    """Erode with a 3x3 square `times` times, by the definition; pixels outside are unset."""
    for _ in range(times):
        padded = np.pad(mask, 1)
        mask = np.logical_and.reduce(
            [
                padded[y : y + mask.shape[0], x : x + mask.shape[1]]
                for y in range(3)
                for x in range(3)
            ]
        )
    return mask


def test_boundary_counts_equal_those_of_the_papers_erosions() -> None:
    ground_truth, prediction = random_masks(3)
    distance = boundary_width(*ground_truth.shape)
    assert distance == 2
    counts = count_boundaries(ground_truth, prediction, 5)
    for label in range(4):
        masks = ground_truth == label, (prediction == label) & (ground_truth != IGNORE_INDEX)
        in_ground_truth, in_prediction = (mask & ~erode(mask, distance) for mask in masks)
        assert counts[label].tolist() == [
            (in_ground_truth & in_prediction).sum(),
            (in_ground_truth | in_prediction).sum(),
        ]
    assert counts[4].tolist() == [0, 0]


def test_pixels_near_an_outline_or_the_border_are_found() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[10:30, 10:30] = 1
    near = near_outline(labels, 3)
    assert near[10:13, 20].all() and not near[13:27, 20].any() and near[27:33, 20].all()
    assert near[:3].all() and not near[3:7, 3:37].any()  # the border of the image, then nothing
