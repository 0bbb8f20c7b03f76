"""Intervals of scores, in simulations with a known true score."""

import numpy as np
import pytest
from scipy.special import expit, logit, stdtrit

from cocoseg.evaluation.statistics import (
    ClassPixels,
    class_counts,
    difference_variance,
    iou_intervals,
    mean_ious,
    miou_interval,
    weighted_ious,
)
from cocoseg.inference.confusion import count_confusion
from tests.samples import random_masks


class ZipfWorld:
    """Random images on which two models are tested; the frequency of a class is 1 / its rank.

    An image shows three classes on average. Objects differ in size, images in difficulty. Of the
    missed pixels, a part is predicted as any class, which the image need not show.
    """

    def __init__(self, classes: int) -> None:
        random = np.random.default_rng(classes)
        self.frequency = 1 / np.arange(1, classes)
        self.frequency /= self.frequency.sum()
        first = random.beta(4, 3, classes - 1).clip(0.05, 0.95)
        better = first + random.normal(0.02, 0.03, classes - 1)
        self.quality = [logit(q) for q in (first, better.clip(0.02, 0.98))]

    def draw(self, random: np.random.Generator, images: int) -> list[ClassPixels]:
        shape = images, len(self.frequency)
        shown = random.random(shape) < 1 - np.exp(-3 * self.frequency)
        true = shown * np.exp(random.normal(7, 1, shape))
        ease = random.normal(0, 0.5, (images, 1)) + random.normal(0, 0.6, shape)
        confused = random.choice(shape[1], images, p=self.frequency)
        leaked = 0.15 * (random.random(images) < 0.5)
        background = np.full((images, 1), 30_000)
        models = []
        for quality in self.quality:
            right = true * expit(quality + ease + random.normal(0, 0.5, shape))
            missed = (true - right).sum(axis=1)
            unions = true.copy()
            unions[np.arange(images), confused] += leaked * missed
            parts = (background - 500, right), (background + missed[:, None], unions)
            intersections, unions = (np.hstack(part) for part in parts)
            models.append(ClassPixels(intersections, unions, np.hstack([background, true])))
        return models

    def true_ious(self) -> list[float]:
        """The mean IoUs of both models on 40,000 images."""
        random = np.random.default_rng(0)
        drawn = [self.draw(random, 4000) for _ in range(10)]
        totals = [
            [sum(getattr(counts[model], name).sum(axis=0) for counts in drawn) for name in fields]
            for model in (0, 1)
            for fields in [("intersections", "unions")]
        ]
        return [float(np.mean(intersections / unions)) for intersections, unions in totals]


SIZES = [(5, 60), (40, 200), (120, 500)]


@pytest.mark.parametrize(("classes", "images"), SIZES)
def test_95_percent_of_intervals_contain_the_true_mean_iou(classes: int, images: int) -> None:
    world = ZipfWorld(classes)
    true, _ = world.true_ious()
    covered = 0
    for seed in range(500):
        counts, _ = world.draw(np.random.default_rng(seed), images)
        interval = miou_interval(counts)
        assert interval["low"] is not None and interval["high"] is not None
        assert interval["low"] <= np.nanmean(counts.ious()) <= interval["high"]
        covered += interval["low"] <= true <= interval["high"]
    assert 460 <= covered <= 490


@pytest.mark.parametrize(("classes", "images"), SIZES)
def test_95_percent_of_intervals_contain_the_true_difference(classes: int, images: int) -> None:
    world = ZipfWorld(classes)
    first, second = world.true_ious()
    covered = 0
    for seed in range(500):
        sides = world.draw(np.random.default_rng(seed), images)
        variances, freedom = difference_variance(sides[:1], sides[1:])
        difference = np.nanmean(sides[1].ious()) - np.nanmean(sides[0].ious())
        half = stdtrit(freedom[0], 0.975) * np.sqrt(variances[0])
        covered += abs(difference - (second - first)) <= half
    assert 460 <= covered <= 490


def test_classes_with_a_single_image_leave_the_mean_iou_without_an_interval() -> None:
    world = ZipfWorld(120)
    for seed in range(500):
        sides = world.draw(np.random.default_rng(seed), 20)
        interval = miou_interval(sides[0])
        assert interval["low"] is interval["high"] is None
        assert "fewer than two images" in interval["reason"]
        assert difference_variance(sides[:1], sides[1:])[1][0] < 1


def test_a_single_image_has_no_interval() -> None:
    counts = class_counts(np.array([[[9, 1], [2, 8]]]))
    reason = "more than a quarter of the classes are in fewer than two images"
    assert miou_interval(counts) == {"low": None, "high": None, "reason": reason}
    few = {"low": None, "high": None, "reason": "fewer than two images show the class"}
    assert iou_intervals(counts) == [few, few]


def test_images_without_a_class_have_no_interval() -> None:
    counts = class_counts(np.array([[[9, 1], [0, 0]]] * 3))
    assert miou_interval(counts)["reason"] == "no image shows a class"


def test_equal_images_have_an_interval_without_width() -> None:
    counts = class_counts(np.array([[[9, 1], [2, 8]]] * 3))
    score = round((9 / 12 + 8 / 11) / 2, 6)
    assert miou_interval(counts) == {"low": score, "high": score}
    assert iou_intervals(counts)[0] == {"low": 0.75, "high": 0.75}


def test_the_interval_of_a_class_covers_the_true_score_in_95_percent_of_runs() -> None:
    """Pixels are right with a probability that varies between images and is 0.8 on average, which
    makes the true IoU 0.8 / 1.2."""
    random = np.random.default_rng(0)
    runs, images = 300, 80
    right = random.binomial(100, random.beta(8, 2, (runs, images)))
    covered = 0
    for row in right:
        confusions = np.stack([row, 100 - row, 100 - row, row], axis=1).reshape(images, 2, 2)
        interval = iou_intervals(class_counts(confusions))[1]
        assert interval["low"] is not None and interval["high"] is not None
        covered += interval["low"] <= 0.8 / 1.2 <= interval["high"]
    assert 0.92 <= covered / runs <= 0.98


def test_the_intervals_of_some_classes_ignore_the_others() -> None:
    confusions = np.array([count_confusion(*random_masks(seed), 5) for seed in range(6)])
    every, some = class_counts(confusions), class_counts(confusions, [0, 2])
    assert iou_intervals(some) == [iou_intervals(every)[label] for label in (0, 2)]
    assert miou_interval(some) != miou_interval(every)


def test_a_sample_that_shows_no_class_has_no_mean_iou() -> None:
    confusions = np.array([[[8, 2], [0, 0]], [[5, 0], [0, 5]]])
    weights = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    means = mean_ious(weighted_ious(confusions, weights), confusions, weights)
    np.testing.assert_allclose(means, [(13 / 15 + 5 / 7) / 2, np.nan, 1.0])
