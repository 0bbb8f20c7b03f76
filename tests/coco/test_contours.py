"""Outlines of pixels: rasterizing them gives the same pixels."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from scipy import ndimage

from cocoseg.coco.contours import component_polygons
from cocoseg.core.labels import Labels

RING = ["#####", "#...#", "#.#.#", "#...#", "#####"]
TWO_HOLES = ["#######", "#.###.#", "#.#.#.#", "#######"]
DIAGONAL = ["##..", "##..", "..##", "..##"]
DIAGONAL_HOLES = ["####", "#.##", "##.#", "####"]
NOTCH = ["##.##", "#...#", "##.##", "#####"]


def region_of(rows: list[str]) -> Labels:
    return np.array([[character == "#" for character in row] for row in rows], np.uint8)


def rasterized(polygon: list[float], shape: tuple[int, int]) -> Labels:
    decoded: Labels = coco_mask.decode(coco_mask.frPyObjects([polygon], *shape))[..., 0]
    return decoded


def assert_same_pixels(region: Labels) -> int:
    """Compare each polygon with its component; returns their number."""
    components, count = ndimage.label(region)
    polygons = list(component_polygons(region.astype(bool)))
    assert len(polygons) == count
    for number, polygon in enumerate(polygons, start=1):
        assert np.array_equal(rasterized(polygon, region.shape), components == number)
    return count


@pytest.mark.parametrize(
    ("rows", "components"),
    [(RING, 2), (TWO_HOLES, 1), (DIAGONAL, 2), (DIAGONAL_HOLES, 1), (NOTCH, 1), (["#"], 1)],
)
def test_holes_and_diagonal_contacts_are_kept(rows: list[str], components: int) -> None:
    assert assert_same_pixels(region_of(rows)) == components


def test_a_rectangle_has_four_vertices() -> None:
    region = np.zeros((6, 9), bool)
    region[1:4, 2:7] = True
    (polygon,) = component_polygons(region)
    assert sorted(zip(polygon[0::2], polygon[1::2], strict=True)) == [
        (2, 1),
        (2, 4),
        (7, 1),
        (7, 4),
    ]


def test_an_empty_region_has_no_polygons() -> None:
    assert list(component_polygons(np.zeros((3, 4), bool))) == []


def test_random_regions_are_kept_to_the_pixel() -> None:
    rng = np.random.default_rng(0)
    for density in (0.1, 0.5, 0.7, 0.9, 1.0):
        for _ in range(20):
            shape = tuple(rng.integers(1, 24, 2))
            assert_same_pixels((rng.random(shape) < density).astype(np.uint8))


def test_smooth_regions_are_kept_to_the_pixel() -> None:
    noise = np.random.default_rng(1).random((120, 160))
    region = (ndimage.gaussian_filter(noise, 3) > 0.5).astype(np.uint8)
    assert assert_same_pixels(region) > 3
