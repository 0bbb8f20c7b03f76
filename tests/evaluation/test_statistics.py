"""Comparisons of runs: scores, differences, intervals, and the images and classes compared."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ttest_ind, ttest_rel

from cocoseg.core.errors import UserError
from cocoseg.evaluation.statistics import Comparison, ImageCounts, ScoredRun, compare_runs
from cocoseg.inference.confusion import iou_scores, mean_iou

CLASSES = ["background", "person", "car"]
Counts = NDArray[np.int64]


def scored(
    counts: Counts | dict[str, Counts],
    name: str = "run",
    classes: Sequence[str] = CLASSES,
    trained_on: Sequence[str] = (),
    ground_truth: str = "t",
) -> ScoredRun:
    """A run with these confusion matrices, by stem or, as an array, named 0, 1, …"""
    if not isinstance(counts, dict):
        counts = {str(number): matrix for number, matrix in enumerate(counts)}
    confusions = {stem: matrix.tolist() for stem, matrix in counts.items()}
    return ScoredRun(
        name,
        ImageCounts(list(classes), confusions, dict.fromkeys(confusions, ground_truth)),
        frozenset(trained_on),
    )


class World:
    """Random images of varying content and difficulty, and random models."""

    def __init__(self, seed: int, images: int) -> None:
        self.random = np.random.default_rng(seed)
        self.pixels = self.random.integers(50, 400, (images, 3))
        self.pixels[:, 2] *= self.random.random(images) < 0.4  # most images show no car
        self.ease = self.random.normal(0, 0.08, (images, 3))

    def run(self, quality: Sequence[float], seed_noise: float) -> Counts:
        """The confusion matrices (images, 3, 3) of one training run, with random errors."""
        luck = self.random.normal(0, 0.04, self.ease.shape) + self.random.normal(0, seed_noise, 3)
        correct = self.random.binomial(self.pixels, (quality + self.ease + luck).clip(0.02, 0.98))
        wrong = self.pixels - correct
        counts = np.zeros((len(correct), 3, 3), np.int64)
        for label in range(3):
            counts[:, label, label] = correct[:, label]
            counts[:, label, (label + 1) % 3] = wrong[:, label] // 2
            counts[:, label, (label + 2) % 3] = wrong[:, label] - wrong[:, label] // 2
        return counts


A, B = [0.9, 0.6, 0.55], [0.9, 0.64, 0.6]


def true_difference(seed_noise: float) -> float:
    """The difference of the mean IoU over thousands of images and many training runs."""
    world = World(99, 4000)
    scores = [
        np.mean([mean_iou(world.run(quality, seed_noise).sum(axis=0)) for _ in range(60)])
        for quality in (A, B)
    ]
    return float(scores[1] - scores[0])


@pytest.mark.parametrize(
    ("images", "runs", "seed_noise", "folds"),
    [(60, 1, 0.0, False), (60, 3, 0.03, False), (100, 5, 0.03, True)],
    ids=["one run per side", "three seeds per side", "five folds per side"],
)
def test_95_percent_of_intervals_contain_the_true_difference(
    images: int, runs: int, seed_noise: float, folds: bool
) -> None:
    true = true_difference(seed_noise)
    covered = 0
    for seed in range(1000):
        world = World(seed, images)
        sides = []
        for quality in (A, B):
            trained = [world.run(quality, seed_noise) for _ in range(runs)]
            tested = [
                {str(i): counts[i] for i in range(images) if not folds or i % runs == number}
                for number, counts in enumerate(trained)
            ]
            sides.append([scored(counts) for counts in tested])
        found = compare_runs(*sides).differences[0]
        covered += found.low <= true <= found.high
    assert 930 <= covered <= 970


def compared(first: Counts, second: Counts) -> Comparison:
    return compare_runs([scored(first)], [scored(second)])


def test_identical_runs_have_a_difference_of_exactly_zero() -> None:
    counts = World(0, 20).run(A, 0)
    for found in compared(counts, counts).differences:
        assert (found.difference, found.low, found.high) == (0, 0, 0)
        assert found.verdict == "the same"


def test_scores_are_over_all_pixels_and_image_scores_over_those_of_an_image() -> None:
    world = World(1, 30)
    first, second = world.run(A, 0), world.run(B, 0)
    whole, *classes = compared(first, second).differences
    assert whole.name == "mean IoU"
    assert whole.first == mean_iou(first.sum(axis=0))
    assert whole.second == mean_iou(second.sum(axis=0))
    assert whole.difference == whole.second - whole.first
    assert [d.name for d in classes] == CLASSES
    assert [d.second for d in classes] == iou_scores(second.sum(axis=0)).tolist()
    expected = [(mean_iou(a), mean_iou(b)) for a, b in zip(first, second, strict=True)]
    by_stem = sorted(range(30), key=str)
    assert compared(first, second).image_scores == [pytest.approx(expected[i]) for i in by_stem]


def test_the_order_of_images_does_not_matter() -> None:
    world = World(2, 30)
    first, second = world.run(A, 0), world.run(B, 0)
    backwards = {str(i): second[i] for i in reversed(range(30))}
    assert compare_runs([scored(first)], [scored(backwards)]) == compared(first, second)


def test_the_verdict_has_the_direction_of_a_clear_difference() -> None:
    world = World(3, 200)
    first, second = world.run(A, 0), world.run([0.95, 0.9, 0.9], 0)
    assert compared(first, second).differences[0].verdict == "better"
    assert compared(second, first).differences[0].verdict == "worse"
    again = world.run(A, 0)
    assert compared(first, again).differences[0].verdict == "cannot tell"


def test_seeds_are_averaged_and_their_spread_widens_the_interval() -> None:
    world = World(4, 200)
    first = [world.run(A, 0.05) for _ in range(3)]
    second = [world.run(B, 0.05) for _ in range(3)]
    found = compare_runs([scored(c) for c in first], [scored(c) for c in second])
    assert found.differences[0].first == pytest.approx(
        np.mean([mean_iou(counts.sum(axis=0)) for counts in first])
    )
    alone = compared(first[0], second[0])
    width = [c.differences[0].high - c.differences[0].low for c in (found, alone)]
    assert width[0] > 2 * width[1]
    assert found.covered[1:] == [
        "the training seed of A (3 runs)",
        "the training seed of B (3 runs)",
    ]
    assert not found.not_covered
    assert alone.not_covered == [
        "the training seed of A (one run)",
        "the training seed of B (one run)",
    ]


def test_the_interval_of_seeds_equals_welchs_t_test() -> None:
    """All images of a run have the same counts, so only the seeds vary."""
    world = World(12, 5)
    world.pixels[:, 2] = 100
    first, second = ([world.run(A, 0.05)[:1].repeat(4, axis=0) for _ in range(n)] for n in (3, 6))
    found = compare_runs([scored(c) for c in first], [scored(c) for c in second])
    scores = [[mean_iou(counts.sum(axis=0)) for counts in side] for side in (second, first)]
    expected = ttest_ind(*scores, equal_var=False).confidence_interval()
    assert (found.differences[0].low, found.differences[0].high) == pytest.approx(expected)
    assert found.image_scores == [pytest.approx([np.mean(scores[1]), np.mean(scores[0])])] * 4


def test_the_interval_of_folds_equals_a_paired_t_test() -> None:
    world = World(13, 40)
    sides = [
        [{str(i): counts[i] for i in range(40) if i % 4 == fold} for fold in range(4)]
        for counts in (world.run(A, 0.05), world.run(B, 0.05))
    ]
    found = compare_runs(*([scored(fold) for fold in side] for side in sides))
    scores = [[mean_iou(sum(fold.values())) for fold in side] for side in sides]
    expected = ttest_rel(*scores).confidence_interval()
    width = found.differences[0].high - found.differences[0].low
    assert width == pytest.approx(expected.high - expected.low)
    assert (len(found.covered), found.not_covered) == (1, [])


def test_folds_are_pooled_into_one_test_of_all_images() -> None:
    counts = World(5, 30).run(A, 0)
    folds = [scored({str(i): counts[i] for i in range(30) if i % 5 == fold}) for fold in range(5)]
    found = compare_runs(folds, [scored(counts)])
    assert len(found.images) == 30
    assert found.differences[0].difference == 0
    assert "5 folds" in found.covered[0]


def test_only_folds_with_a_common_image_count_as_folds() -> None:
    counts = World(5, 50).run(A, 0)
    folds = [scored({str(i): counts[i] for i in range(50) if i % 5 == fold}) for fold in range(5)]
    in_one = World(6, 50).run(B, 0)
    found = compare_runs(folds, [scored({str(i): in_one[i] for i in range(0, 50, 5)})])
    assert found.covered == ["the choice of images (10, jackknife)"]
    assert np.isfinite([found.differences[1].low, found.differences[1].high]).all()
    found = compare_runs(folds, folds[:3])
    assert "3 folds" in found.covered[0]


def test_only_common_images_are_compared_and_the_others_are_listed() -> None:
    counts = World(6, 6).run(A, 0)
    first = scored(dict.fromkeys("abcd", counts[0]), trained_on="ef")
    second = scored(dict.fromkeys("cde", counts[0]), trained_on="a")
    found = compare_runs([first], [second])
    assert found.images == ["c", "d"]
    assert (found.only_first, found.only_second) == (["a", "b"], ["e"])
    assert found.trained_on == ["a", "e"]


def test_classes_are_matched_by_name_and_the_rest_is_background() -> None:
    world = World(7, 30)
    counts = world.run(A, 0)
    order = [0, 2, 1]  # the second run lists car before person
    swapped = counts[:, order][:, :, order]
    found = compare_runs(
        [scored(counts)], [scored(swapped, classes=["background", "car", "person"])]
    )
    assert all(d.difference == 0 for d in found.differences)
    assert not found.other_ground_truth
    other = world.run(B, 0)[:, order][:, :, order]
    found = compare_runs([scored(counts)], [scored(other, classes=["background", "car", "person"])])
    assert not found.other_ground_truth

    fewer = counts.copy()
    fewer[:, 0] += fewer[:, 2]
    fewer[:, :, 0] += fewer[:, :, 2]
    fewer = fewer[:, :2, :2]
    found = compare_runs([scored(counts)], [scored(fewer, classes=["background", "person"])])
    assert [d.name for d in found.differences] == ["mean IoU", "background", "person"]
    assert all(d.difference == 0 for d in found.differences)


def test_images_with_different_true_labels_are_listed() -> None:
    counts = World(8, 5).run(A, 0)
    assert compare_runs(
        [scored(counts)], [scored(counts, ground_truth="u")]
    ).other_ground_truth == list("01234")
    dropped = counts[:, :2, :2]
    found = compare_runs([scored(counts)], [scored(dropped, classes=["background", "person"])])
    assert found.other_ground_truth == [
        str(i) for i in range(5) if counts[i, :, 2].any() or counts[i, 2].any()
    ]


def test_a_class_in_a_single_image_has_a_score_but_no_interval() -> None:
    world = World(9, 10)
    world.pixels[1:, 2] = 0
    world.pixels[0, 2] = 100
    first, second = world.run(A, 0), world.run(B, 0)
    car = compared(first, second).differences[-1]
    assert car.name == "car" and not np.isnan(car.difference)
    assert np.isnan(car.low) and np.isnan(car.high) and car.verdict == "cannot tell"


def test_a_single_common_image_has_no_interval() -> None:
    world = World(10, 1)
    found = compared(world.run(A, 0), world.run(B, 0)).differences[0]
    assert np.isnan(found.low) and found.verdict == "cannot tell"


def test_without_a_class_in_the_ground_truth_the_mean_iou_cannot_be_compared() -> None:
    counts = np.array([[[9, 1, 0], [0, 0, 0], [0, 0, 0]]] * 3)
    whole, background, person, car = compared(counts, counts).differences
    assert np.isnan([whole.first, whole.second, whole.difference, whole.low, whole.high]).all()
    assert whole.verdict == "cannot tell"
    assert (background.first, person.first) == (0.9, 0.0)
    assert np.isnan(car.first)


def test_a_mean_iou_that_depends_on_a_single_image_has_no_interval() -> None:
    empty = [[10, 0, 0], [0, 0, 0], [0, 0, 0]]
    counts = np.array([[[10, 0, 0], [0, 10, 0], [0, 0, 0]], *[empty] * 2])
    worse = counts.copy()
    worse[0, 1] = [10, 0, 0]
    whole = compared(counts, worse).differences[0]
    assert whole.first == 1.0
    assert whole.second == pytest.approx((30 / 40 + 0) / 2)
    assert np.isnan([whole.low, whole.high]).all() and whole.verdict == "cannot tell"


def test_runs_without_common_images_or_classes_are_refused() -> None:
    counts = World(11, 3).run(A, 0)
    with pytest.raises(UserError, match="no scored image in common"):
        compare_runs([scored(counts)], [scored({"x": counts[0]})])
    with pytest.raises(UserError, match="no class in common"):
        compare_runs([scored(counts)], [scored(counts, classes=["background", "cat", "dog"])])
