"""Scores from a confusion matrix, equal to those that scikit-learn computes from the pixels."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as reference

from cocoseg.core.labels import IGNORE_INDEX
from cocoseg.evaluation.boundary import boundary_width, count_boundaries, near_outline
from cocoseg.evaluation.calibration import (
    BINS,
    calibration_error,
    count_confidence,
    reliability_rows,
)
from cocoseg.evaluation.statistics import draw_images, interval_95, mean_of_defined, weighted_ious
from cocoseg.inference.confusion import (
    count_confusion,
    dice_scores,
    iou_scores,
    mean_iou,
    precision_scores,
    recall_scores,
    summarize_scores,
)


def random_maps(seed: int, classes: int = 4) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A truth (50, 60) with blobs and void, and a prediction that is right now and then."""
    random = np.random.default_rng(seed)
    ground_truth = random.integers(0, classes, (5, 6)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
    noise = random.integers(0, classes, ground_truth.shape).astype(np.uint8)
    prediction = np.where(
        random.random(ground_truth.shape) < 0.6, np.roll(ground_truth, 2, 1), noise
    )
    ground_truth[:5] = IGNORE_INDEX
    return ground_truth, prediction


def test_confusion_counts_truth_in_rows_and_leaves_void_out() -> None:
    ground_truth = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
    prediction = np.array([[0, 1, 1], [0, 2, 2]], np.uint8)
    expected = [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert count_confusion(ground_truth, prediction, 3).tolist() == expected


def test_scores_equal_those_of_scikit_learn_to_the_last_printed_digit() -> None:
    ground_truth, prediction = random_maps(0)
    confusion = count_confusion(ground_truth, prediction, 4)
    pixels = ground_truth[ground_truth != IGNORE_INDEX], prediction[ground_truth != IGNORE_INDEX]
    assert confusion.tolist() == reference.confusion_matrix(*pixels).tolist()
    scores = summarize_scores(confusion, list("abcd"))
    ious = reference.jaccard_score(*pixels, average=None)
    assert list(scores["iou"].values()) == [round(float(iou), 6) for iou in ious]
    assert scores["miou"] == round(float(reference.jaccard_score(*pixels, average="macro")), 6)
    assert scores["pixel_accuracy"] == round(reference.accuracy_score(*pixels), 6)
    assert scores["mean_accuracy"] == round(float(reference.balanced_accuracy_score(*pixels)), 6)
    precision, recall, dice, _ = reference.precision_recall_fscore_support(*pixels)
    assert dice_scores(confusion) == pytest.approx(dice, abs=1e-12)
    assert precision_scores(confusion) == pytest.approx(precision, abs=1e-12)
    assert recall_scores(confusion) == pytest.approx(recall, abs=1e-12)


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


def test_the_bootstrap_resamples_whole_images() -> None:
    """Of two images, one all right and one all wrong, each half right over the two: a resample
    draws right-right, right-wrong or wrong-wrong, at 1:2:1."""
    confusions = np.array([[[10, 0], [0, 10]], [[0, 10], [10, 0]]])
    means = mean_of_defined(weighted_ious(confusions, draw_images(2, 4000)))
    values, counts = np.unique(means.round(6), return_counts=True)
    assert values.tolist() == [0, 0.333333, 1]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_the_interval_covers_the_true_score_as_often_as_it_says() -> None:
    """Images of two classes, 100 pixels each, right by a chance that differs from image to image:
    0.8 on average, which makes the IoU 0.8 / 1.2."""
    random = np.random.default_rng(0)
    runs, images = 300, 80
    right = random.binomial(100, random.beta(8, 2, (runs, images)))
    covered = 0
    for row in right:
        confusions = np.stack([row, 100 - row, 100 - row, row], axis=1).reshape(images, 2, 2)
        interval = interval_95(
            mean_of_defined(weighted_ious(confusions, draw_images(images, 300)))
        )
        assert interval["low"] is not None and interval["high"] is not None
        covered += interval["low"] <= 0.8 / 1.2 <= interval["high"]
    assert 0.90 <= covered / runs <= 0.98


def test_an_interval_is_the_same_every_time_and_none_without_a_score() -> None:
    confusions = np.array([count_confusion(*random_maps(seed), 5) for seed in range(6)])
    first, second = (weighted_ious(confusions, draw_images(len(confusions))) for _ in range(2))
    assert np.array_equal(first, second, equal_nan=True)
    assert interval_95(first[:, 4]) == {"low": None, "high": None}


def erode(mask: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    """Erosion with a 3x3 square, `times` over, by its definition; outside counts as unset."""
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


def test_boundary_iou_equals_the_papers_own_steps() -> None:
    ground_truth, prediction = random_maps(3)
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


def test_the_middle_of_a_large_object_is_not_near_its_outline() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[10:30, 10:30] = 1
    near = near_outline(labels, 3)
    assert near[10:13, 20].all() and not near[13:27, 20].any() and near[27:33, 20].all()
    assert near[:3].all() and not near[3:7, 3:37].any()  # the image's border, then nothing


def test_pixels_are_sorted_into_bins_of_confidence() -> None:
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
