"""Confusion matrices and scores, compared with those of scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference

from cocoseg.core.errors import MissingFileError, UserError
from cocoseg.core.labels import IGNORE_INDEX, write_mask
from cocoseg.inference.confusion import (
    count_confusion,
    dice_scores,
    iou_scores,
    mean_iou,
    mean_of_defined_ious,
    precision_scores,
    recall_scores,
    score_masks,
    summarize_scores,
)
from tests.samples import random_masks


def test_the_ground_truth_is_in_rows_and_ignored_pixels_are_not_counted() -> None:
    ground_truth = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
    prediction = np.array([[0, 1, 1], [0, 0, 2]], np.uint8)
    expected = [[1, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert count_confusion(ground_truth, prediction, 3).tolist() == expected


def test_scores_equal_those_of_scikit_learn_to_the_last_digit() -> None:
    ground_truth, prediction = random_masks(0)
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


def test_a_class_that_never_occurs_has_no_score_and_does_not_affect_the_mean() -> None:
    confusion = np.array([[6, 2, 0], [0, 4, 0], [0, 0, 0]])
    scores = summarize_scores(confusion, ["background", "person", "car"])
    assert list(scores["iou"]) == ["background", "person", "car"]
    assert scores["iou"]["car"] is None
    assert scores["miou"] == pytest.approx((6 / 8 + 4 / 6) / 2, abs=1e-6)
    assert scores["pixel_accuracy"] == pytest.approx(10 / 12, abs=1e-6)
    assert scores["mean_accuracy"] == pytest.approx((6 / 8 + 1) / 2, abs=1e-6)


def test_a_class_that_is_only_predicted_scores_zero() -> None:
    assert iou_scores(np.array([[3, 1], [0, 0]]))[1] == 0


def test_a_stack_of_matrices_has_a_stack_of_ious() -> None:
    confusions = np.stack([count_confusion(*random_masks(seed), 4) for seed in range(3)])
    expected = [iou_scores(confusion).tolist() for confusion in confusions]
    assert iou_scores(confusions).tolist() == expected


@pytest.mark.parametrize(
    ("confusion", "accuracy", "ious"),
    [
        ([[9, 0], [0, 0]], 1.0, [1.0, None]),
        ([[6, 3], [0, 0]], 0.666667, [0.666667, 0.0]),  # the class is only predicted
        ([[0, 0], [0, 0]], 0.0, [None, None]),
    ],
)
def test_the_mean_is_undefined_if_the_ground_truth_shows_only_background(
    confusion: list[list[int]], accuracy: float, ious: list[float | None]
) -> None:
    assert np.isnan(mean_iou(np.array(confusion)))
    assert summarize_scores(np.array(confusion), ["background", "cat"]) == {
        "miou": None,
        "pixel_accuracy": accuracy,
        "mean_accuracy": None,
        "iou": dict(zip(("background", "cat"), ious, strict=True)),
    }


def test_one_pixel_of_a_class_defines_the_mean() -> None:
    assert mean_iou(np.array([[9, 0], [1, 0]])) == 0.45


def test_the_mean_of_defined_ious_of_an_image_includes_one_without_objects() -> None:
    assert mean_of_defined_ious(np.array([[9, 0], [0, 0]])) == 1.0
    assert mean_of_defined_ious(np.array([[6, 3], [0, 0]])) == pytest.approx(1 / 3)
    assert mean_of_defined_ious(np.zeros((2, 2), np.int64)) == 0.0


def test_masks_are_scored_from_arrays_and_from_directories(tmp_path: Path) -> None:
    pairs = [random_masks(seed) for seed in range(3)]
    confusion = sum(count_confusion(*pair, 4) for pair in pairs)
    expected = summarize_scores(np.asarray(confusion), list("abcd"))
    assert score_masks(*zip(*pairs, strict=True), list("abcd")) == expected
    directories = tmp_path / "masks", tmp_path / "predictions"
    for directory, masks in zip(directories, zip(*pairs, strict=True), strict=True):
        directory.mkdir()
        for number, mask in enumerate(masks):
            write_mask(directory / f"{number}.png", mask)
    write_mask(directories[0] / "without a prediction.png", pairs[0][0])
    assert score_masks(*directories, list("abcd")) == expected
    (directories[0] / "1.png").unlink()
    with pytest.raises(MissingFileError, match=r"masks/1\.png not found: .*1\.png has no ground"):
        score_masks(str(directories[0]), str(directories[1]), list("abcd"))


def test_masks_without_classes_have_no_mean_iou() -> None:
    empty, prediction = np.zeros((2, 4), np.uint8), np.array([[0, 0, 0, 1]] * 2, np.uint8)
    scores = score_masks([empty], [prediction], ["background", "cat"])
    assert (scores["miou"], scores["iou"]) == (None, {"background": 0.75, "cat": 0.0})


def test_masks_that_cannot_be_scored_are_refused(tmp_path: Path) -> None:
    mask, prediction = random_masks(0)
    with pytest.raises(UserError, match="mask 0: label 3 is not one of 3 classes"):
        score_masks([mask], [prediction], list("abc"))
    with pytest.raises(UserError, match="mask 1: label 255 is not one of 4 classes"):
        score_masks([mask] * 2, [prediction, np.full_like(mask, 255)], list("abcd"))
    with pytest.raises(UserError, match=r"mask 0: expected shape \(50, 60\), got \(60, 50\)"):
        score_masks([mask], [prediction.T], list("abcd"))
    with pytest.raises(UserError, match="no masks to score in"):
        score_masks(tmp_path, tmp_path, list("abcd"))
    with pytest.raises(ValueError, match="shorter"):
        score_masks([mask, mask], [prediction], list("abcd"))
    with pytest.raises(TypeError, match="expected two directories"):
        score_masks(tmp_path, [prediction], list("abcd"))
