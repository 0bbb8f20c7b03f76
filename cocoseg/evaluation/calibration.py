"""Whether the network is right as often as its softmax confidence says.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoseg.core.labels import IGNORE_INDEX, Labels
from cocoseg.inference.confusion import ratio

BINS = 15
"""Equal parts of the range of 0 to 1, as many as in the paper."""


def count_confidence(
    ground_truth: Labels, prediction: Labels, confidence: NDArray[np.float32]
) -> NDArray[Any]:
    """Sort the pixels that are not void by confidence: float64 (BINS, 3), of each bin the number
    of pixels, of right ones, and the sum of the confidences. All arrays are (H, W)."""
    counted = ground_truth != IGNORE_INDEX
    confidence = confidence[counted]
    bins = np.minimum((confidence * BINS).astype(np.intp), BINS - 1)
    right = prediction[counted] == ground_truth[counted]
    weights = (None, right, confidence)
    columns = [np.bincount(bins, weights=weight, minlength=BINS) for weight in weights]
    return np.stack(columns, axis=1).astype(np.float64)


def calibration_error(counts: NDArray[np.float64]) -> float:
    """The mean distance between confidence and accuracy, weighted by pixels (the paper's ECE)."""
    pixels, right, confidence = counts.T
    return float(np.abs(right - confidence).sum() / max(pixels.sum(), 1))


def reliability_rows(counts: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Of each bin that has pixels: its mean confidence, its accuracy and its number of pixels."""
    pixels, right, confidence = counts.T
    return [
        {
            "confidence": round(float(mean), 4),
            "accuracy": round(float(accuracy), 4),
            "pixels": int(count),
        }
        for mean, accuracy, count in zip(
            ratio(confidence, pixels), ratio(right, pixels), pixels, strict=True
        )
        if count
    ]
