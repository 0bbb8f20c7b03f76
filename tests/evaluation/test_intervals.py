"""Bootstrap intervals of scores."""

import numpy as np
import pytest

from cocoseg.evaluation.statistics import (
    draw_images,
    interval_95,
    mean_ious,
    mean_of_defined,
    weighted_ious,
)
from cocoseg.inference.confusion import count_confusion
from tests.samples import random_masks


def test_the_bootstrap_resamples_whole_images() -> None:
    """Of two images, one is right and one wrong: resamples have 2, 1 or 0 right ones at 1:2:1."""
    confusions = np.array([[[10, 0], [0, 10]], [[0, 10], [10, 0]]])
    means = mean_of_defined(weighted_ious(confusions, draw_images(2, 4000)))
    values, counts = np.unique(means.round(6), return_counts=True)
    assert values.tolist() == [0, 0.333333, 1]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_the_interval_covers_the_true_score_in_95_percent_of_runs() -> None:
    """Pixels are right with a probability that varies between images and is 0.8 on average, which
    makes the true IoU 0.8 / 1.2."""
    random = np.random.default_rng(0)
    runs, images = 300, 80
    right = random.binomial(100, random.beta(8, 2, (runs, images)))
    covered = 0
    for row in right:
        confusions = np.stack([row, 100 - row, 100 - row, row], axis=1).reshape(images, 2, 2)
        interval = interval_95(mean_of_defined(weighted_ious(confusions, draw_images(images, 300))))
        assert interval["low"] is not None and interval["high"] is not None
        covered += interval["low"] <= 0.8 / 1.2 <= interval["high"]
    assert 0.90 <= covered / runs <= 0.98


def test_intervals_are_reproducible_and_none_without_a_score() -> None:
    confusions = np.array([count_confusion(*random_masks(seed), 5) for seed in range(6)])
    first, second = (weighted_ious(confusions, draw_images(len(confusions))) for _ in range(2))
    assert np.array_equal(first, second, equal_nan=True)
    assert interval_95(first[:, 4]) == {"low": None, "high": None}


def test_a_sample_that_shows_no_class_has_no_mean_iou() -> None:
    confusions = np.array([[[8, 2], [0, 0]], [[5, 0], [0, 5]]])
    weights = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    means = mean_ious(weighted_ious(confusions, weights), confusions, weights)
    np.testing.assert_allclose(means, [(13 / 15 + 5 / 7) / 2, np.nan, 1.0])
