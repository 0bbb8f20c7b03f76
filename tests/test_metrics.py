"""Scores from a confusion matrix."""

import numpy as np
import pytest

from cocoseg.metrics import count_confusion, iou_scores, mean_iou, summarize_scores


def test_confusion_counts_truth_in_rows_and_leaves_void_out() -> None:
    truth = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
    prediction = np.array([[0, 1, 1], [0, 2, 2]], np.uint8)
    expected = [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert count_confusion(truth, prediction, 3).tolist() == expected


def test_iou_is_intersection_over_union_of_the_pixel_sets() -> None:
    random = np.random.default_rng(0)
    truth, prediction = random.integers(0, 4, (2, 50, 60)).astype(np.uint8)
    truth[:5] = 255
    counted = truth != 255
    scores = iou_scores(count_confusion(truth, prediction, 4))
    for label in range(4):
        in_truth, in_prediction = truth == label, (prediction == label) & counted
        expected = (in_truth & in_prediction).sum() / (in_truth | in_prediction).sum()
        assert scores[label] == pytest.approx(expected, abs=1e-15)


def test_a_class_that_never_occurs_has_no_score_and_no_part_in_the_mean() -> None:
    confusion = np.array([[6, 2, 0], [0, 4, 0], [0, 0, 0]])
    scores = summarize_scores(confusion, ["background", "person", "car"])
    assert scores["iou"]["car"] is None
    assert scores["miou"] == pytest.approx((6 / 8 + 4 / 6) / 2, abs=1e-6)
    assert scores["pixel_accuracy"] == pytest.approx(10 / 12, abs=1e-6)
    assert scores["mean_accuracy"] == pytest.approx((6 / 8 + 1) / 2, abs=1e-6)


def test_a_class_predicted_where_it_is_not_scores_zero() -> None:
    assert iou_scores(np.array([[3, 1], [0, 0]]))[1] == 0


def test_no_pixels_at_all_score_zero() -> None:
    assert mean_iou(np.zeros((3, 3), np.int64)) == 0
