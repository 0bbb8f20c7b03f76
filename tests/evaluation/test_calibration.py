"""Calibration of confidences."""

import numpy as np
import pytest

from cocoseg.evaluation.calibration import (
    BINS,
    calibration_error,
    count_confidence,
    reliability_rows,
)


def test_pixels_are_counted_in_bins_of_confidence() -> None:
    ground_truth = np.array([[0, 0, 1, 1, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 1, 1]], np.uint8)
    confidence = np.array([[0.42, 0.44, 1.0, 0.96, 0.99]], np.float32)
    counts = count_confidence(ground_truth, prediction, confidence)
    assert counts.shape == (BINS, 3)
    assert reliability_rows(counts) == [
        {"confidence": 0.43, "accuracy": 0.5, "pixels": 2},
        {"confidence": 0.98, "accuracy": 1.0, "pixels": 2},
    ]
    assert calibration_error(counts) == pytest.approx((0.07 * 2 + 0.02 * 2) / 4)
