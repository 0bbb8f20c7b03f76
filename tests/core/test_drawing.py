"""Overlays of labels and errors, and example images with a legend."""

import numpy as np
import pytest

from cocoseg.core.drawing import ERRORS, draw_example, overlay_errors, overlay_labels
from cocoseg.core.labels import IGNORE_INDEX, PALETTE


def test_an_overlay_colors_labels_but_not_the_background() -> None:
    image = np.full((20, 20, 3), 100, np.uint8)
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 2
    overlay = overlay_labels(image, labels, opacity=0.6)
    assert (overlay[labels == 0] == 100).all()
    assert (overlay[5, 5] == PALETTE[2]).all()
    assert (overlay[10, 10] == np.round(0.4 * 100 + 0.6 * PALETTE[2])).all()


def test_errors_are_colored_by_kind_and_ignored_pixels_are_not_errors() -> None:
    ground_truth = np.array([[0, 1, 0, 1, IGNORE_INDEX, 2]], np.uint8)
    prediction = np.array([[0, 0, 1, 2, 1, 2]], np.uint8)
    errors = overlay_errors(np.full((1, 6, 3), 100, np.uint8), ground_truth, prediction)
    missed, false_alarm, wrong_class = ERRORS.values()
    gray = (177, 177, 177)
    expected = [gray, missed, false_alarm, wrong_class, gray, gray]
    assert [tuple(pixel) for pixel in errors[0].tolist()] == expected


@pytest.mark.parametrize(("height", "width"), [(60, 80), (80, 20), (20, 300), (1, 1)])
def test_an_example_of_any_shape_fits_the_page_and_has_a_legend(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    ground_truth = np.zeros((height, width), np.uint8)
    names = ["background", *(f"class number {label}" for label in range(1, 12))]
    prediction = ground_truth + np.arange(width, dtype=np.uint8) % 11 + 1
    page = draw_example(image, ground_truth, prediction, names, "caption")
    assert page.width <= 4 * 2 * 240 + 5 * 8
    pixels = np.asarray(page).reshape(-1, 3)
    for label in np.unique(prediction):
        assert (pixels == PALETTE[label]).all(axis=1).sum() > 100  # the color in the legend


def test_a_legend_has_other_scripts_and_numbers_in_place_of_names_that_no_font_has() -> None:
    image, labels = np.zeros((40, 60, 3), np.uint8), np.ones((40, 60), np.uint8)

    def page(name: str) -> bytes:
        return draw_example(image, labels, labels, ["background", name], "é").tobytes()

    assert page("жук") != page("зуб") != page("boxes")
    assert page("牛") == page("class 1")
