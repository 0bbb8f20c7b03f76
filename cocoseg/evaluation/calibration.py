"""Calibration: whether the softmax confidence equals the accuracy.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017.
"""

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from cocoseg.core.labels import IGNORE_INDEX, Labels
from cocoseg.inference.confusion import ratio

BINS = 15
"""The number of bins of equal width between 0 and 1, as in the paper."""


class ReliabilityRow(TypedDict):
    """A bin of `reliability.csv`: its mean confidence, its accuracy and its number of pixels."""

    confidence: float
    accuracy: float
    pixels: int


def count_confidence(
    ground_truth: Labels, prediction: Labels, confidence: NDArray[np.float32]
) -> NDArray[Any]:
    """Count the pixels of one image that are not ignored by bins of confidence.

    Args:
        ground_truth: uint8 (H, W).
        prediction: uint8 (H, W).
        confidence: the probability of the predicted label, float32 (H, W).

    Returns:
        For each bin the number of pixels, the number of correct pixels and the sum of their
        confidences, float64 (BINS, 3).
    """
    counted = ground_truth != IGNORE_INDEX
    confidence = confidence[counted]
    bins = np.minimum((confidence * BINS).astype(np.intp), BINS - 1)
    correct = prediction[counted] == ground_truth[counted]
    weights = (None, correct, confidence)
    columns = [np.bincount(bins, weights=weight, minlength=BINS) for weight in weights]
    return np.stack(columns, axis=1).astype(np.float64)


def calibration_error(counts: NDArray[np.float64]) -> float:
    """The expected calibration error (ECE) of the paper, from summed counts (BINS, 3)."""
    pixels, correct, confidence = counts.T
    return float(np.abs(correct - confidence).sum() / max(pixels.sum(), 1))


def reliability_rows(counts: NDArray[np.float64]) -> list[ReliabilityRow]:
    """The rows of `reliability.csv` from summed counts (BINS, 3), without empty bins."""
    pixels, correct, confidence = counts.T
    return [
        {
            "confidence": round(float(mean), 4),
            "accuracy": round(float(accuracy), 4),
            "pixels": int(count),
        }
        for mean, accuracy, count in zip(
            ratio(confidence, pixels), ratio(correct, pixels), pixels, strict=True
        )
        if count
    ]
