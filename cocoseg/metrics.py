"""From a confusion matrix to scores.

Definitions: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation",
2015, section 5.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoseg.labels import VOID

Confusion = NDArray[np.int64]
"""Pixel counts (classes, classes): rows are the truth, columns the prediction."""


def count_confusion(truth: NDArray[Any], prediction: NDArray[Any], classes: int) -> Confusion:
    """Count the pixels of two label arrays of one shape; void pixels of the truth do not count."""
    counted = truth != VOID
    cells = truth[counted].astype(np.int64) * classes + prediction[counted]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def iou_scores(confusion: Confusion) -> NDArray[np.float64]:
    """Intersection over union of each class; NaN for one in neither truth nor prediction."""
    intersection = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    return _ratio(intersection, union)


def mean_iou(confusion: Confusion) -> float:
    """The mean IoU over all classes that occur, background included."""
    return float(np.nanmean(iou_scores(confusion))) if confusion.any() else 0.0


def summarize_scores(confusion: Confusion, names: Sequence[str]) -> dict[str, Any]:
    """The scores of `metrics/test.json`, rounded to 6 digits; None for a class that never occurs.

    `names` are the classes' names in label order, background first.
    """
    accuracy = _ratio(np.diag(confusion).astype(np.float64), confusion.sum(axis=1))
    return {
        "miou": round(mean_iou(confusion), 6),
        "pixel_accuracy": round(float(np.trace(confusion) / max(confusion.sum(), 1)), 6),
        "mean_accuracy": round(float(np.nanmean(accuracy)), 6) if confusion.any() else 0.0,
        "iou": {
            name: None if np.isnan(iou) else round(float(iou), 6)
            for name, iou in zip(names, iou_scores(confusion), strict=True)
        },
    }


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    ratio = np.full(len(part), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
