"""From confusion matrices to scores.

IoU and accuracies: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic
Segmentation", 2015, section 5.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoseg.core.labels import IGNORE_INDEX
from cocoseg.core.values import rounded

Confusion = NDArray[np.int64]
"""Pixel counts (classes, classes): rows are the truth, columns the prediction."""

Scores = NDArray[np.float64]
"""A score of 0 to 1 for each class; NaN where it is not defined."""


def count_confusion(
    ground_truth: NDArray[Any], prediction: NDArray[Any], classes: int
) -> Confusion:
    """Count the pixels of two label arrays of one shape; void pixels of the truth do not count."""
    counted = ground_truth != IGNORE_INDEX
    cells = ground_truth[counted].astype(np.int64) * classes + prediction[counted]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def iou_scores(confusion: Confusion) -> Scores:
    """Intersection over union of each class; NaN for one in neither truth nor prediction.

    `confusion` may be a stack (..., classes, classes); the result is (..., classes) then.
    """
    return ratio(*intersections_and_unions(confusion))


def intersections_and_unions(confusion: Confusion) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pixels of each class (..., classes) in both truth and prediction, and in one of them at
    least."""
    intersection = np.diagonal(confusion, axis1=-2, axis2=-1)
    return intersection, confusion.sum(axis=-1) + confusion.sum(axis=-2) - intersection


def dice_scores(confusion: Confusion) -> Scores:
    """Twice the intersection over the sum of both areas (Dice, 1945), which is the F1 score."""
    intersection = np.diagonal(confusion)
    return ratio(2 * intersection, confusion.sum(axis=0) + confusion.sum(axis=1))


def precision_scores(confusion: Confusion) -> Scores:
    """The share of each class's predicted pixels that are right; NaN for one never predicted."""
    return ratio(np.diagonal(confusion), confusion.sum(axis=0))


def recall_scores(confusion: Confusion) -> Scores:
    """The share of each class's true pixels that are found; NaN for one that never occurs."""
    return ratio(np.diagonal(confusion), confusion.sum(axis=1))


def mean_iou(confusion: Confusion) -> float:
    """The mean IoU over all classes that occur, background included."""
    return float(np.nanmean(iou_scores(confusion))) if confusion.any() else 0.0


def summarize_scores(confusion: Confusion, names: Sequence[str]) -> dict[str, Any]:
    """The scores of `metrics/test.json`, rounded to 6 digits; None for a class that never occurs.

    `names` are the classes' names in label order, background first.
    """
    return {
        "miou": rounded(mean_iou(confusion)),
        "pixel_accuracy": rounded(np.trace(confusion) / max(confusion.sum(), 1)),
        "mean_accuracy": (
            rounded(np.nanmean(recall_scores(confusion))) if confusion.any() else 0.0
        ),
        "iou": dict(zip(names, map(rounded, iou_scores(confusion)), strict=True)),
    }


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """`part` / `whole`; NaN where `whole` is zero."""
    quotient = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=quotient, where=np.asarray(whole) > 0)
    return quotient
