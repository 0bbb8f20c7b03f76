"""How sure scores are, and whether one run is better than another, image by image.

    comparison = compare_runs([first_run], [second_run])
    comparison.differences[0].verdict          # of the mean IoU: better, worse or cannot tell

A side is one run or a group: seeds, which test the same images, or folds, which divide them. Both
sides are scored on the images that both test, so that what differs is the runs and not the images.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from cocoseg.core.errors import UserError
from cocoseg.core.seeding import generator
from cocoseg.core.values import rounded
from cocoseg.inference.confusion import (
    Confusion,
    intersections_and_unions,
    iou_scores,
    ratio,
)

# --- Intervals ------------------------------------------------------------------------------------


def draw_images(images: int, resamples: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """How often each image is drawn (resamples, images), as many at a time and with replacement.

    The bootstrap of Efron, 1979; images are the unit, as the pixels of one image are not
    independent of each other.
    """
    drawn = generator(seed, "bootstrap").integers(images, size=(resamples, images))
    cells = np.arange(resamples)[:, None] * images + drawn
    times = np.bincount(cells.ravel(), minlength=resamples * images)
    return times.reshape(resamples, images).astype(np.float64)


def weighted_ious(
    confusions: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The IoU of each class (rows, classes) over images that count as each row of `weights` says.

    `confusions` (images, classes, classes) holds each image's own matrix; `weights` (rows, images)
    are whole numbers.
    """
    # float64 holds these whole numbers exactly, and has a fast matrix product.
    return ratio(*(weights @ counts for counts in intersections_and_unions(confusions)))


def mean_of_defined(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean along the last axis without NaN; NaN where nothing else is there."""
    return ratio(np.nansum(scores, axis=-1), (~np.isnan(scores)).sum(axis=-1))


def interval_95(samples: NDArray[np.float64]) -> list[float | None]:
    """The range of the middle 95% of samples, rounded to 6 digits; None without any."""
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return [None, None]
    return [rounded(value) for value in np.percentile(defined, [2.5, 97.5])]


# --- Comparison -----------------------------------------------------------------------------------


class ImageCounts(msgspec.Struct):
    """A model's counts on its test images, by their stem: the confusion matrix of each, and a hash
    of its true labels. `classes` are names in label order, background first."""

    classes: list[str]
    confusions: dict[str, list[list[int]]]
    ground_truths: dict[str, str]


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """A run's counts on its test images, and the stems of the images it was trained on."""

    name: str
    counts: ImageCounts
    trained_on: Set[str]


@dataclass(frozen=True)
class Difference:
    """A score of both sides, their difference (second minus first) and its 95% interval.

    NaN where a score is not defined, or nothing can be said of its chance.
    """

    name: str
    first: float
    second: float
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> Literal["better", "worse", "the same", "cannot tell"]:
        """What the interval says about the second side."""
        if self.low == self.high == 0:
            return "the same"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "cannot tell"


@dataclass(frozen=True)
class Comparison:
    """Two sides on the images that both test.

    `differences` are of the mean IoU, then of each shared class. `covered` and `not_covered` say in
    words which sources of chance the intervals know. `image_scores` are each image's mean IoU on
    both sides. `other_truth` are the images that are not scored against the same labels, and
    `trained_on` those that are left out because the other side was trained on them.
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
    """Compare two sides, called `names`, on the images that both test.

    They are scored by the classes that all runs know; a class that only some know counts as
    background. Raises UserError where no image, or no class but the background, is shared.
    """
    runs = [*first, *second]
    classes = [
        name for name in runs[0].counts.classes if all(name in run.counts.classes for run in runs)
    ]
    if len(classes) < 2:
        raise UserError("the runs have no class in common: there is nothing to compare")
    sides = [_passes(first), _passes(second)]
    images = sorted(set.intersection(*(set(owners) for side in sides for owners in side)))
    if not images:
        raise UserError(
            "no test image is shared: compare runs on one source of data with one split.seed, "
            "and all folds with all folds"
        )
    counts = [
        np.stack([[_shared_part(owners[i], i, classes) for i in images] for owners in side])
        for side in sides
    ]
    differences, covered, not_covered = _differences(
        ["mean IoU", *classes], counts, sides, images, names
    )
    tested = [
        {image for run in side for image in run.counts.confusions} for side in (first, second)
    ]
    trained = [{image for run in side for image in run.trained_on} for side in (first, second)]
    only_first, only_second = (sorted(of - set(images)) for of in tested)
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
"""Test images, each with the run that tests it: the images of one run, or of several folds."""


def _passes(runs: Sequence[ScoredRun]) -> list[Pass]:
    """The runs of a side, those put together that divide the images among them."""
    passes: list[Pass] = []
    for run in runs:
        apart = [owners for owners in passes if owners.keys().isdisjoint(run.counts.confusions)]
        if not apart:
            passes.append({})
        (apart or passes[-1:])[0].update(dict.fromkeys(run.counts.confusions, run))
    return passes


def _shared_part(run: ScoredRun, image: str, classes: Sequence[str]) -> Confusion:
    """An image's confusion (classes, classes) in the order of `classes`; others are background."""
    places = [classes.index(name) if name in classes else 0 for name in run.counts.classes]
    moved = np.eye(len(classes), dtype=np.int64)[places]
    shared: Confusion = moved.T @ np.asarray(run.counts.confusions[image]) @ moved
    return shared


def _ground_truths(image: str, runs: Sequence[ScoredRun], classes: Sequence[str]) -> set[object]:
    """The different true labels of an image: one where all runs that test it agree."""
    testing = [run for run in runs if image in run.counts.confusions]
    if len({tuple(run.counts.classes) for run in testing}) == 1:
        return {run.counts.ground_truths[image] for run in testing}
    # Labels of other classes have other hashes; of the shared ones, the pixels are counted.
    return {tuple(_shared_part(run, image, classes).sum(axis=1)) for run in testing}


def _differences(
    names: Sequence[str],
    counts: Sequence[NDArray[np.int64]],
    sides: Sequence[Sequence[Pass]],
    images: Sequence[str],
    side_names: Sequence[str],
) -> tuple[list[Difference], list[str], list[str]]:
    """The differences, and which sources of chance their intervals cover, and do not.

    `counts` are (passes, images, classes, classes) of either side. An interval is the difference
    plus and minus Student's t times the root of the variance, which is a sum over sources:

    images  the bootstrap variance over the shared images, the same draws for both sides; or, where
            a side has folds, the variance of the folds' differences over their number
    seeds   of each side with several passes, the variance of their scores over their number

    The degrees of freedom of the sum are Satterthwaite's (1946), as in Welch's test (1947). Folds
    share training images, so that theirs is a low estimate (Bengio and Grandvalet, 2004).
    """
    observed = [_scores(side, np.ones((1, len(images))))[:, 0] for side in counts]
    first, second = (_mean_of_passes(side) for side in observed)
    folds = next((folds for side in sides if len(folds := _folds(side[0], images)) > 1), None)
    if folds is None:
        draws = draw_images(len(images))
        by_draw = [_mean_of_passes(_scores(side, draws)) for side in counts]
        showing = (counts[0][0].sum(axis=2) > 0).sum(axis=0)
        variances = [_variance(by_draw[1] - by_draw[0])]
        freedoms = [np.array([len(images), *showing]) - 1.0]
        covered = [f"which images are tested ({len(images)}, paired bootstrap)"]
    else:
        by_fold = [_mean_of_passes(_scores(side, folds)) for side in counts]
        variances = [_variance(by_fold[1] - by_fold[0]) / len(folds)]
        freedoms = [np.full(len(names), len(folds) - 1.0)]
        covered = [f"which images and models the folds have ({len(folds)} folds)"]
    not_covered = []
    for name, side, scores in zip(side_names, sides, observed, strict=True):
        if len(side) > 1:
            variances.append(_variance(scores) / len(side))
            freedoms.append(np.full(len(names), len(side) - 1.0))
            covered.append(f"the training seed of {name} ({len(side)} runs)")
        elif folds is None:
            not_covered.append(f"the training seed of {name} (one run)")
    total = np.sum(variances, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = total**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
        half = np.where(total == 0, 0, stdtrit(freedom, 0.975) * np.sqrt(total))
    half[freedoms[0] < 1] = np.nan  # one image says nothing of others
    difference = second - first
    columns = first, second, difference, difference - half, difference + half
    rows = zip(names, *(column.tolist() for column in columns), strict=True)
    return [Difference(*row) for row in rows], covered, not_covered


def _folds(owners: Pass, images: Sequence[str]) -> NDArray[np.float64]:
    """Which of the images each run of a pass tests, if any: (runs, images) of 0 and 1."""
    runs = list({id(owners[image]): owners[image] for image in images}.values())
    return np.array([[float(owners[image] is run) for image in images] for run in runs])


def _scores(counts: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean IoU, then the IoU of each class: (passes, rows of weights, 1 + classes)."""
    ious = np.stack([weighted_ious(one_pass, weights) for one_pass in counts])
    return np.concatenate([mean_of_defined(ious)[..., None], ious], axis=-1)


def _image_scores(counts: NDArray[np.int64]) -> list[float]:
    """Each image's own mean IoU, the mean over the passes."""
    scores = mean_of_defined(iou_scores(counts))
    means: list[float] = np.nan_to_num(scores).mean(axis=0).tolist()  # an image that is void: 0
    return means


def _mean_of_passes(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return mean_of_defined(np.moveaxis(scores, 0, -1))


def _variance(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The variance of each column without NaN; NaN for fewer than two numbers."""
    counted = (~np.isnan(rows)).sum(axis=0)
    squares = np.nansum((rows - mean_of_defined(rows.T)) ** 2, axis=0)
    return ratio(squares, counted - 1)
