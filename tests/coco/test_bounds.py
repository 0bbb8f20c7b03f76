"""Positions of outlines, also of invalid ones."""

import random
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from cocoseg.coco.bounds import Overshoot, overshoot, possible_box
from cocoseg.coco.instances import Polygons, RunLengths
from cocoseg.coco.rasterize import rasterize
from tests.coco_files import painted

NAN = float("nan")


@pytest.mark.parametrize(
    ("polygon", "expected"),
    [
        ([0, 0, 20, 0, 20, 10], None),
        ([-0.01, 0, 20.01, 0, 20, 10.01], None),
        ([0, -0.02, 20, 0, 20, 10], (0.02, 0.002)),
        ([0, 0, 22, 0, 20, 10], (2, 0.1)),
        ([0, 0, 20, 0, 20, 12], (2, 0.2)),
        ([-3, 0, 20, 0, 20, 12], (3, 0.2)),  # more pixels to the left, a larger fraction below
    ],
)
def test_an_overshoot_is_measured_in_pixels_and_as_a_fraction_of_its_side(
    polygon: list[float], expected: Any
) -> None:
    for polygons in ([polygon], [[1, 1, 2, 1, 2, 2], polygon]):
        found = overshoot(polygons, 20, 10)
        assert (found is None) if expected is None else (found == pytest.approx(expected))


def test_the_largest_overshoot_of_all_polygons_counts() -> None:
    polygons: Polygons = [[0, 0, 21, 0, 20, 10], [0, 0, 20, 0, 20, 13], [0, 0, 22, 0, 20, 10]]
    assert overshoot(polygons, 20, 10) == Overshoot(3, 0.3)


def test_run_lengths_never_extend_beyond_the_image() -> None:
    assert overshoot(RunLengths((10, 20), [200]), 20, 10) is None


OUTLINE = [[2.5, 3, 9, 3, 9, 7.2]]
BOX = [1, 2, 10, 5]


@pytest.mark.parametrize(
    ("segmentation", "bbox", "expected"),
    [
        (OUTLINE, BOX, (2, 3, 9, 8)),
        (OUTLINE[0], BOX, (2, 3, 9, 8)),  # a flat list
        ([[2.5, 3, 9, 3, 9]], BOX, (1, 2, 11, 7)),  # odd
        ([[2.5, 3, 9, 3, 9, None]], BOX, (1, 2, 11, 7)),
        ([[2.5, 3, 9, 3, 9, "7"]], BOX, (1, 2, 11, 7)),
        ([[2.5, 3, 9, 3, 9, NAN]], BOX, (1, 2, 11, 7)),
        ([[2.5, 3, 9, 3, 9, 10**400]], BOX, (1, 2, 11, 7)),
        ([[5, 5]], BOX, (1, 2, 11, 7)),  # a point says less than a box
        ({"size": [9, 9], "counts": "x"}, BOX, (1, 2, 11, 7)),
        ([{"size": [9, 9], "counts": "x"}], BOX, (1, 2, 11, 7)),
        (None, BOX, (1, 2, 11, 7)),
        ("nonsense", [-5, 2, 100.5, 5], (0, 2, 20, 7)),  # clipped to the image
        ([[2.5, 3, 9, 7.2, 5]], None, (2, 3, 9, 8)),
        ([[2.5, 3, NAN, 5, 9, 7.2]], [1, 2, 3], (2, 3, 9, 8)),
        ([[2.5, 3, 9], [9, 7.2]], None, (2, 3, 9, 8)),
        ([[2.5, 3], [9, 3], [9, 7.2]], None, (2, 3, 9, 8)),  # a list of points
        (OUTLINE, [0, 0, NAN, 1], (2, 3, 9, 8)),
        (None, None, None),
        ([], [], None),
        ({"size": [9, 9], "counts": "x"}, None, None),
        (None, [0, 0, 0, 0], None),
        ([[5, 5, 5, 5]], None, None),
        (None, [True, 2, 3, 4], None),
    ],
)
def test_the_possible_box_is_that_of_the_outline_or_else_the_box(
    segmentation: Any, bbox: Any, expected: Any
) -> None:
    assert possible_box(segmentation, bbox, 20, 10) == expected


def test_a_possible_box_outside_the_image_is_empty() -> None:
    left, _, right, _ = possible_box([[30, 1, 40, 1, 40, 9]], None, 20, 10) or (0, 0, 0, 0)
    assert left >= right


def test_deeply_nested_lists_have_no_position() -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    assert possible_box(nested, None) is None


def test_clipped_outlines_have_the_pixels_of_pycocotools() -> None:
    rng = random.Random(0)
    for _ in range(400):
        width, height = rng.randint(1, 60), rng.randint(1, 60)
        beyond = 10 ** rng.uniform(-1, 1.7)  # 0.1 to 50 pixels
        polygon = [
            rng.uniform(-beyond, side + beyond)
            for _ in range(rng.randint(3, 9))
            for side in (width, height)
        ]
        expected = coco_mask.decode(coco_mask.frPyObjects([polygon], height, width))[..., 0]
        ours = rasterize([painted([polygon], 1)], width, height, overlap="last", crowd="ignore")
        assert np.array_equal(ours, expected), (polygon, width, height)
