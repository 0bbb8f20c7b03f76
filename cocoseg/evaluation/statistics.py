"""Confidence intervals of scores, and the comparison of runs.

    comparison = compare_runs([first_run], [second_run])
    comparison.differences[0].verdict    # of the mean IoU: "better", "worse" or "cannot tell"

Each side of a comparison is one run or a group of runs: seeds, which test the same images, or
folds, which test disjoint images. Both sides are scored on their common images, so that
differences come from the runs and not from the images.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from cocoseg.core.errors import UserError
from cocoseg.core.values import rounded
from cocoseg.inference.confusion import (
    Confusion,
    intersections_and_unions,
    iou_scores,
    ratio,
)

# --- Intervals ------------------------------------------------------------------------------------


class Interval(TypedDict):
    """A 95% interval; None where it cannot be estimated, for the given reason."""

    low: float | None
    high: float | None
    reason: NotRequired[str]


class ClassPixels(NamedTuple):
    """Pixel counts of each class in each image, each (images, classes).

    Attributes:
        intersections: the pixels in both ground truth and prediction.
        unions: the pixels in either.
        true_pixels: the pixels in the ground truth.
    """

    intersections: NDArray[Any]
    unions: NDArray[Any]
    true_pixels: NDArray[Any]

    def images_of_classes(self) -> NDArray[np.int64]:
        """The number of images whose ground truth shows each class, (classes,)."""
        shown: NDArray[np.int64] = (self.true_pixels > 0).sum(axis=0)
        return shown

    def ious(self) -> NDArray[np.float64]:
        """The IoU of each class over all images, (classes,)."""
        return ratio(self.intersections.sum(axis=0), self.unions.sum(axis=0))

    def ious_without(self) -> NDArray[np.float64]:
        """The IoU of each class over all images but one, for each image, (images, classes)."""
        intersections, unions = (
            counts.sum(axis=0) - counts for counts in (self.intersections, self.unions)
        )
        return ratio(intersections, unions)

    def mean_is_uncertain(self) -> bool:
        """Whether too many classes of the mean IoU depend on a single image.

        They are the classes that occur in the ground truth or the prediction, but are shown by the
        ground truth of fewer than two images.
        """
        occurring = self.unions.any(axis=0)
        few = self.images_of_classes()[occurring] < 2
        return not len(few) or bool(few.mean() > _MAX_FEW)


_MAX_FEW = 0.25
"""The largest fraction of classes with fewer than two images for which a simulation confirms the
interval of the mean IoU (tests/evaluation/test_intervals.py)."""


def class_counts(confusions: NDArray[np.int64], labels: Sequence[int] | None = None) -> ClassPixels:
    """Count the pixels of each class in each image.

    Args:
        confusions: the confusion matrix of each image, (images, classes, classes).
        labels: the classes to keep; all by default.
    """
    kept = slice(None) if labels is None else list(labels)
    intersections, unions = intersections_and_unions(confusions)
    return ClassPixels(intersections[:, kept], unions[:, kept], confusions.sum(axis=2)[:, kept])


def iou_intervals(counts: ClassPixels) -> list[Interval]:
    """Estimate the 95% interval of the IoU of each class, for the choice of images."""
    images = counts.images_of_classes()
    lows, highs = _interval_95(counts.ious(), counts.ious_without(), images - 1.0)
    return [
        {"low": rounded(low), "high": rounded(high)}
        if number > 1
        else _no_interval("fewer than two images show the class")
        for low, high, number in zip(lows, highs, images, strict=True)
    ]


def miou_interval(counts: ClassPixels) -> Interval:
    """Estimate the 95% interval of the mean IoU, for the choice of images.

    Images are left out rather than pixels, since the pixels of an image are not independent.
    """
    if not counts.true_pixels[:, 1:].any():
        return _no_interval("no image shows a class")
    if counts.mean_is_uncertain():
        return _no_interval("more than a quarter of the classes are in fewer than two images")
    without = counts.ious_without()
    freedom = _freedom_of_mean(_jackknife_variance(without), counts)
    lows, highs = _interval_95(
        mean_of_defined(counts.ious())[None], mean_of_defined(without)[:, None], freedom
    )
    return {"low": rounded(lows[0]), "high": rounded(highs[0])}


def _no_interval(reason: str) -> Interval:
    return {"low": None, "high": None, "reason": reason}


def _interval_95(
    scores: NDArray[np.float64], without: NDArray[np.float64], freedom: NDArray[Any] | float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ends of the interval of each score, by the jackknife (Quenouille, 1956; Tukey, 1958).

    It contains the score and the score without its bias, and extends beyond both by Student's t
    times the standard error. The bias of an IoU is large if few images show the class.

    Args:
        scores: the scores (n,), from 0 to 1.
        without: the scores without each image, (images, n).
        freedom: the degrees of freedom.
    """
    unbiased = scores - (len(without) - 1) * (mean_of_defined(without.T) - scores)
    half = stdtrit(freedom, 0.975) * np.sqrt(_jackknife_variance(without))
    lows, highs = np.fmin(scores, unbiased) - half, np.fmax(scores, unbiased) + half
    return lows.clip(0, 1), highs.clip(0, 1)


def _jackknife_variance(without: NDArray[np.float64]) -> NDArray[np.float64]:
    """The variance of scores (n,) from the scores without each image, (images, n)."""
    images = len(without)
    return _variance(without) * (images - 1) ** 2 / images


def _freedom_of_mean(variances: NDArray[np.float64], counts: ClassPixels) -> float:
    """The degrees of freedom of a mean over classes with these variances.

    Satterthwaite (1946): a class has one less than the number of images that show it.
    """
    images = counts.images_of_classes()
    used = (images > 1) & (variances > 0)
    if not used.any():
        return len(counts.unions) - 1.0
    variances, freedom = variances[used], images[used] - 1.0
    return min(
        len(counts.unions) - 1.0, float(variances.sum() ** 2 / (variances**2 / freedom).sum())
    )


def weighted_ious(
    confusions: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The IoU of each class over weighted images.

    Args:
        confusions: the confusion matrix of each image, (images, classes, classes).
        weights: how often each image counts, whole numbers, (rows, images).

    Returns:
        The IoUs for each row of weights, (rows, classes).
    """
    # float64 represents these whole numbers exactly, and its matrix product is fast.
    return ratio(*(weights @ counts for counts in intersections_and_unions(confusions)))


def mean_of_defined(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean along the last axis without NaN; NaN if all are NaN."""
    return ratio(np.nansum(scores, axis=-1), (~np.isnan(scores)).sum(axis=-1))


def mean_ious(
    ious: NDArray[np.float64], confusions: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The mean IoU over weighted images; NaN where the ground truth shows only background.

    Args:
        ious: the result (rows, classes) of `weighted_ious` for the other arguments.
        confusions: the confusion matrix of each image, (images, classes, classes).
        weights: how often each image counts, (rows, images).

    Returns:
        The mean for each row of weights, (rows,).
    """
    shown = weights @ confusions[:, 1:].sum(axis=(1, 2))
    return np.where(shown > 0, mean_of_defined(ious), np.nan)


# --- Comparison -----------------------------------------------------------------------------------


class ImageCounts(msgspec.Struct):
    """The counts of a model on the images of a split: `metrics/{val,test}_images.json`.

    Attributes:
        classes: the class names in label order, background first.
        confusions: the confusion matrix of each image by its stem, ground truth in rows.
        ground_truths: a hash of the true labels of each image by its stem.
    """

    classes: list[str]
    confusions: dict[str, list[list[int]]]
    ground_truths: dict[str, str]


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """A run to compare.

    Attributes:
        name: the name of the run.
        counts: its counts on the validation or the test images.
        trained_on: the stems of its training images.
    """

    name: str
    counts: ImageCounts
    trained_on: Set[str]


@dataclass(frozen=True)
class Difference:
    """The difference of one score between two sides.

    Attributes:
        name: `mean IoU` or the name of a class.
        first: the score of the first side, NaN if undefined.
        second: the score of the second side, NaN if undefined.
        difference: second minus first.
        low: the lower end of the 95% interval of the difference, NaN if it cannot be estimated.
        high: the upper end.
    """

    name: str
    first: float
    second: float
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> Literal["better", "worse", "the same", "cannot tell"]:
        """The second side compared with the first, according to the interval."""
        if self.low == self.high == 0:
            return "the same"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "cannot tell"


@dataclass(frozen=True)
class Comparison:
    """Two sides compared on their common test images.

    Attributes:
        differences: the difference of the mean IoU, then of the IoU of each common class.
        covered: the sources of random variation that the intervals cover, in words.
        not_covered: the sources that they do not cover.
        images: the stems of the common test images, sorted.
        image_scores: the mean IoU of each common image on both sides.
        other_ground_truth: the common images whose true labels differ between runs.
        only_first: the test images of the first side only.
        only_second: the test images of the second side only.
        trained_on: test images of one side only that the other side was trained on.
    """

    differences: list[Difference]
    covered: list[str]
    not_covered: list[str]
    images: list[str]
    image_scores: list[tuple[float, float]]
    other_ground_truth: list[str]
    only_first: list[str]
    only_second: list[str]
    trained_on: list[str]


def compare_runs(
    first: Sequence[ScoredRun], second: Sequence[ScoredRun], names: tuple[str, str] = ("A", "B")
) -> Comparison:
    """Compare two sides on their common test images.

    Intervals combine the variance between images (jackknife) or folds with the variance between
    the training seeds of each side, if a side has several.

    Args:
        first: the runs of the first side. Runs that test disjoint images are the folds of one
            pass; other runs are repetitions, such as seeds.
        second: the runs of the second side.
        names: the names of the sides, for `covered` and `not_covered`.

    Returns:
        The comparison. Only classes that all runs have are scored; the other classes count as
        background.

    Raises:
        UserError: the sides have no test image in common, or the runs no class but the background.
    """
    runs = [*first, *second]
    classes = [
        name for name in runs[0].counts.classes if all(name in run.counts.classes for run in runs)
    ]
    if len(classes) < 2:
        raise UserError("the runs have no class in common: compare runs with equal filter.classes")
    sides = [_passes(first), _passes(second)]
    images = sorted(set.intersection(*(set(run_of) for side in sides for run_of in side)))
    if not images:
        raise UserError(
            "the runs have no scored image in common: compare runs with the same data and "
            "split.seed, and all folds with all folds"
        )
    counts = [
        np.stack([[_common_confusion(run_of[i], i, classes) for i in images] for run_of in side])
        for side in sides
    ]
    differences, covered, not_covered = _differences(
        ["mean IoU", *classes], counts, sides, images, names
    )
    tested = [
        {image for run in side for image in run.counts.confusions} for side in (first, second)
    ]
    trained = [{image for run in side for image in run.trained_on} for side in (first, second)]
    only_first, only_second = (sorted(stems - set(images)) for stems in tested)
    return Comparison(
        differences,
        covered,
        not_covered,
        images,
        list(zip(*(_image_scores(side) for side in counts), strict=True)),
        [i for i in images if len(_ground_truths(i, runs, classes)) > 1],
        only_first,
        only_second,
        sorted(trained[1].intersection(only_first) | trained[0].intersection(only_second)),
    )


Pass = dict[str, ScoredRun]
"""The run that tests each image: the same run for all images, or one of several folds."""


def _passes(runs: Sequence[ScoredRun]) -> list[Pass]:
    """Group the runs of a side into passes; runs that test disjoint images form one pass."""
    passes: list[Pass] = []
    for run in runs:
        disjoint = [run_of for run_of in passes if run_of.keys().isdisjoint(run.counts.confusions)]
        if not disjoint:
            passes.append({})
        (disjoint or passes[-1:])[0].update(dict.fromkeys(run.counts.confusions, run))
    return passes


def _common_confusion(run: ScoredRun, image: str, classes: Sequence[str]) -> Confusion:
    """The confusion matrix of an image in the order of `classes`; others count as background."""
    labels = [classes.index(name) if name in classes else 0 for name in run.counts.classes]
    mapping = np.eye(len(classes), dtype=np.int64)[labels]
    common: Confusion = mapping.T @ np.asarray(run.counts.confusions[image]) @ mapping
    return common


def _ground_truths(image: str, runs: Sequence[ScoredRun], classes: Sequence[str]) -> set[object]:
    """Distinct values, one for each version of the true labels of an image."""
    testing = [run for run in runs if image in run.counts.confusions]
    if len({tuple(run.counts.classes) for run in testing}) == 1:
        return {run.counts.ground_truths[image] for run in testing}
    # Different classes lead to different hashes: compare the number of pixels of common classes.
    return {tuple(_common_confusion(run, image, classes).sum(axis=1)) for run in testing}


@dataclass(frozen=True)
class _Variation:
    """A source of random variation, with its variance and degrees of freedom for each score."""

    description: str
    variance: NDArray[np.float64]
    freedom: NDArray[np.float64]


def _differences(
    names: Sequence[str],
    counts: Sequence[NDArray[np.int64]],
    sides: Sequence[Sequence[Pass]],
    images: Sequence[str],
    side_names: Sequence[str],
) -> tuple[list[Difference], list[str], list[str]]:
    """The differences and the sources of variation that their intervals cover and do not cover.

    `counts` are the confusion matrices (passes, images, classes, classes) of each side.
    """
    observed = [_scores(side, np.ones((1, len(images))))[:, 0] for side in counts]
    first, second = (_mean_of_passes(side) for side in observed)
    folds = next((folds for side in sides if len(folds := _folds(side[0], images)) > 1), None)
    sources = [_image_variation(counts) if folds is None else _fold_variation(counts, folds)]
    not_covered = []
    for name, scores in zip(side_names, observed, strict=True):
        runs = len(scores)
        if runs > 1:
            freedom = np.full(len(names), runs - 1.0)
            description = f"the training seed of {name} ({runs} runs)"
            sources.append(_Variation(description, _variance(scores) / runs, freedom))
        elif folds is None:
            not_covered.append(f"the training seed of {name} (one run)")
    difference, half = second - first, _half_width(sources)
    columns = first, second, difference, difference - half, difference + half
    rows = zip(names, *(column.tolist() for column in columns), strict=True)
    return [Difference(*row) for row in rows], [s.description for s in sources], not_covered


def _image_variation(counts: Sequence[NDArray[np.int64]]) -> _Variation:
    """The choice of test images: the jackknife, leaving the same image out on both sides."""
    sides = [[class_counts(one_pass) for one_pass in side] for side in counts]
    variance, freedom = difference_variance(*sides)
    images = counts[0].shape[1]
    if np.array_equal(counts[0], counts[1]):  # equal predictions are the same on any images
        freedom = np.full_like(freedom, np.inf)
    return _Variation(f"the choice of images ({images}, jackknife)", variance, freedom)


def difference_variance(
    first: Sequence[ClassPixels], second: Sequence[ClassPixels]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The variance of the difference between two sides, for the choice of images.

    Args:
        first: the counts of each pass of the first side, on the same images.
        second: those of the second side.

    Returns:
        The variances and their degrees of freedom, for the mean IoU and the IoU of each class,
        (1 + classes,). With less than one degree of freedom, a variance cannot be estimated.
    """
    without = [
        _mean_of_passes(np.stack([_with_mean(one_pass.ious_without()) for one_pass in side]))
        for side in (first, second)
    ]
    variances = _jackknife_variance(without[1] - without[0])
    images = first[0].images_of_classes()
    # The jackknife overestimates the variance of a ratio over few images by images / (images - 1).
    corrected = variances[1:] * np.where(images > 1, (images - 1) / np.maximum(images, 1), 1)
    total = np.nansum(variances[1:])
    mean_variance = variances[0] * (np.nansum(corrected) / total if total else 1)
    uncertain = any(one_pass.mean_is_uncertain() for one_pass in (*first, *second))
    mean_freedom = 0.0 if uncertain else _freedom_of_mean(variances[1:], first[0])
    return np.array([mean_variance, *corrected]), np.array([mean_freedom, *images - 1.0])


def _with_mean(ious: NDArray[np.float64]) -> NDArray[np.float64]:
    """Prepend the mean IoU to the IoUs (rows, classes)."""
    return np.column_stack([mean_of_defined(ious), ious])


def _fold_variation(counts: Sequence[NDArray[np.int64]], folds: NDArray[np.float64]) -> _Variation:
    """The choice of folds: the variance of the folds' differences over the number of folds.

    The folds' training images overlap, so this underestimates (Bengio and Grandvalet, 2004).
    """
    first, second = (_mean_of_passes(_scores(side, folds)) for side in counts)
    return _Variation(
        f"the images and models of the folds ({len(folds)} folds)",
        _variance(second - first) / len(folds),
        np.full(first.shape[-1], len(folds) - 1.0),
    )


def _half_width(sources: Sequence[_Variation]) -> NDArray[np.float64]:
    """Half of the 95% interval: Student's t times the square root of the total variance.

    The degrees of freedom are Satterthwaite's (1946), as in Welch's test (1947).
    """
    total = np.sum([source.variance for source in sources], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = total**2 / sum(source.variance**2 / source.freedom for source in sources)
        half = np.where(total == 0, 0, stdtrit(freedom, 0.975) * np.sqrt(total))
    half[sources[0].freedom < 1] = np.nan  # the variance cannot be estimated from one image
    return half


def _folds(run_of: Pass, images: Sequence[str]) -> NDArray[np.float64]:
    """Whether each run of a pass tests each image, (runs, images), without runs that test none."""
    runs = list({id(run_of[image]): run_of[image] for image in images}.values())
    return np.array([[float(run_of[image] is run) for image in images] for run in runs])


def _scores(counts: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean IoU and the IoU of each class, (passes, rows of weights, 1 + classes).

    The mean is NaN where the ground truth shows no class but the background.
    """
    scores = []
    for one_pass in counts:
        ious = weighted_ious(one_pass, weights)
        scores.append(np.column_stack([mean_ious(ious, one_pass, weights), ious]))
    return np.stack(scores)


def _image_scores(counts: NDArray[np.int64]) -> list[float]:
    """The mean IoU of each image, averaged over the passes."""
    scores = mean_of_defined(iou_scores(counts))
    means: list[float] = np.nan_to_num(scores).mean(axis=0).tolist()  # 0 if all pixels are ignored
    return means


def _mean_of_passes(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return mean_of_defined(np.moveaxis(scores, 0, -1))


def _variance(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sample variance of each column without NaN; NaN for fewer than two values."""
    count = (~np.isnan(rows)).sum(axis=0)
    squares = np.nansum((rows - mean_of_defined(rows.T)) ** 2, axis=0)
    return ratio(squares, count - 1)
