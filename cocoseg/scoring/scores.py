"""Further scores from confusion matrices, and how sure they are: intervals by the bootstrap."""

import numpy as np
from numpy.typing import NDArray

from cocoseg.common.randomness import generator
from cocoseg.network.confusion import Confusion, Scores, iou_scores, ratio, rounded


def dice_scores(confusion: Confusion) -> Scores:
    """Twice the intersection over the sum of both areas (Dice, 1945), which is the F1 score."""
    intersection = np.diagonal(confusion)
    return ratio(2 * intersection, confusion.sum(axis=0) + confusion.sum(axis=1))


def precision_scores(confusion: Confusion) -> Scores:
    """The share of each class's predicted pixels that are right; NaN for one never predicted."""
    return ratio(np.diagonal(confusion), confusion.sum(axis=0))


def resample_ious(
    confusions: NDArray[np.int64], resamples: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """The IoU of each class (resamples, classes) over images drawn again with replacement.

    `confusions` (images, classes, classes) holds each image's own matrix. The bootstrap of Efron,
    1979; images are the unit, as the pixels of one image are not independent of each other.
    """
    images, classes, _ = confusions.shape
    drawn = generator(seed, "bootstrap").integers(images, size=(resamples, images))
    times = np.zeros((resamples, images))
    np.add.at(times, (np.arange(resamples)[:, None], drawn), 1)
    # float64 holds these whole numbers exactly, and has a fast matrix product.
    totals = times @ confusions.reshape(images, -1).astype(np.float64)
    return iou_scores(totals.astype(np.int64).reshape(resamples, classes, classes))


def mean_of_defined(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean along the last axis without NaN; NaN where nothing else is there."""
    return ratio(np.nansum(scores, axis=-1), (~np.isnan(scores)).sum(axis=-1))


def interval_95(samples: NDArray[np.float64]) -> list[float | None]:
    """The range of the middle 95% of samples, rounded to 6 digits; None without any."""
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return [None, None]
    return [rounded(value) for value in np.percentile(defined, [2.5, 97.5])]
