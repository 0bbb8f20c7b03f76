"""Confusion matrices and scores.

scores = score_masks("data/masks", "data/predictions", ["background", "person", "car"])
scores["miou"], scores["iou"]["car"]

IoU and accuracies: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic
Segmentation", 2015, section 5.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from cocoseg.core.errors import MissingFileError, UserError
from cocoseg.core.labels import IGNORE_INDEX, read_mask
from cocoseg.core.values import rounded

Confusion = NDArray[np.int64]
"""Pixel counts (classes, classes): ground truth in rows, predictions in columns."""

ClassScores = NDArray[np.float64]
"""A score from 0 to 1 per class; NaN where it is undefined."""


class Scores(TypedDict):
    """Scores over a set of images, rounded to 6 digits.

    Attributes:
        miou: the mean IoU over the classes that occur, background included. None if the ground
            truth shows no class but the background.
        pixel_accuracy: the fraction of pixels with the right label.
        mean_accuracy: the mean recall over the classes that occur in the ground truth, or None as
            `miou`.
        iou: the IoU by class name; None for a class that never occurs.
    """

    miou: float | None
    pixel_accuracy: float
    mean_accuracy: float | None
    iou: dict[str, float | None]


Masks = str | Path | Iterable[NDArray[Any]]
"""A directory of masks (PNG files), or label arrays (H, W)."""


def score_masks(ground_truth: Masks, predictions: Masks, classes: Sequence[str]) -> Scores:
    """Score predicted masks.

    Args:
        ground_truth: the true masks. Pixels of IGNORE_INDEX are not counted.
        predictions: the predicted masks: for directories, of any of the files in `ground_truth`;
            for arrays, of all of them, in the same order.
        classes: the class names in label order, background first.

    Raises:
        MissingFileError: a prediction has no ground truth.
        UserError: the predictions are empty, two masks differ in shape, or a label has no class.
    """
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    count = 0
    for name, mask, prediction in _mask_pairs(ground_truth, predictions):
        if mask.shape != prediction.shape:
            raise UserError(f"{name}: expected shape {mask.shape}, got {prediction.shape}")
        counted = mask != IGNORE_INDEX
        highest = max(array[counted].max(initial=0) for array in (mask, prediction))
        if highest >= len(classes):
            raise UserError(f"{name}: label {highest} is not one of {len(classes)} classes")
        confusion += count_confusion(mask, prediction, len(classes))
        count += 1
    if not count:
        raise UserError(f"no masks to score in {predictions}")
    return summarize_scores(confusion, classes)


def _mask_pairs(
    ground_truth: Masks, predictions: Masks
) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Yield a name, the ground truth and the prediction of each mask."""
    if isinstance(ground_truth, str | Path) and isinstance(predictions, str | Path):
        for path in sorted(Path(predictions).glob("*.png")):
            mask = Path(ground_truth, path.name)
            if not mask.is_file():
                raise MissingFileError(f"{mask} not found: {path} has no ground truth")
            yield str(path), read_mask(mask), read_mask(path)
    elif isinstance(ground_truth, str | Path) or isinstance(predictions, str | Path):
        raise TypeError("expected two directories, or label arrays for both")
    else:
        for index, pair in enumerate(zip(ground_truth, predictions, strict=True)):
            yield f"mask {index}", *pair


def count_confusion(
    ground_truth: NDArray[Any], prediction: NDArray[Any], classes: int
) -> Confusion:
    """Count the pixels of a mask by true and predicted label.

    Args:
        ground_truth: labels (H, W). Pixels of IGNORE_INDEX are not counted.
        prediction: labels (H, W).
        classes: the number of classes; all other labels are below it (not checked).
    """
    counted = ground_truth != IGNORE_INDEX
    cells = ground_truth[counted].astype(np.int64) * classes + prediction[counted]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def iou_scores(confusion: Confusion) -> ClassScores:
    """Intersection over union of each class; NaN for a class that never occurs.

    Args:
        confusion: one matrix, or a stack (..., classes, classes).

    Returns:
        The IoUs (..., classes).
    """
    return ratio(*intersections_and_unions(confusion))


def intersections_and_unions(confusion: Confusion) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pixels (..., classes) in both ground truth and prediction, and those in either."""
    intersection = np.diagonal(confusion, axis1=-2, axis2=-1)
    return intersection, confusion.sum(axis=-1) + confusion.sum(axis=-2) - intersection


def dice_scores(confusion: Confusion) -> ClassScores:
    """Twice the intersection over the sum of both areas (Dice, 1945), which is the F1 score."""
    intersection = np.diagonal(confusion)
    return ratio(2 * intersection, confusion.sum(axis=0) + confusion.sum(axis=1))


def precision_scores(confusion: Confusion) -> ClassScores:
    """The fraction of correct pixels among each class's predictions; NaN if never predicted."""
    return ratio(np.diagonal(confusion), confusion.sum(axis=0))


def recall_scores(confusion: Confusion) -> ClassScores:
    """The fraction of each class's true pixels that are predicted; NaN if it never occurs."""
    return ratio(np.diagonal(confusion), confusion.sum(axis=1))


def mean_iou(confusion: Confusion) -> float:
    """The mean IoU over all classes that occur, background included.

    NaN if the ground truth shows no class but the background: then there is nothing to find.
    """
    return mean_of_defined_ious(confusion) if shows_classes(confusion) else float("nan")


def shows_classes(confusion: Confusion) -> bool:
    """Whether the ground truth has pixels of a class other than the background."""
    return bool(confusion[1:].any())


def mean_of_defined_ious(confusion: Confusion) -> float:
    """The mean of the defined IoUs, of one image for instance; 0 without pixels."""
    return float(np.nanmean(iou_scores(confusion))) if confusion.any() else 0.0


def summarize_scores(confusion: Confusion, classes: Sequence[str]) -> Scores:
    """Compute the scores of a confusion matrix.

    Args:
        confusion: the matrix (classes, classes).
        classes: the class names in label order, background first.
    """
    recalls = recall_scores(confusion)
    return {
        "miou": rounded(mean_iou(confusion)),
        "pixel_accuracy": round(float(np.trace(confusion) / max(confusion.sum(), 1)), 6),
        "mean_accuracy": rounded(np.nanmean(recalls)) if shows_classes(confusion) else None,
        "iou": dict(zip(classes, map(rounded, iou_scores(confusion)), strict=True)),
    }


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """`part` / `whole`; NaN where `whole` is zero."""
    quotient = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=quotient, where=np.asarray(whole) > 0)
    return quotient
