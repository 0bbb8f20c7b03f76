"""Thumbnails of valid and malformed annotations."""

import json
from typing import Any

import numpy as np
import pytest

from cocoseg.core.labels import PALETTE
from cocoseg.reports.data.thumbnails import (
    THUMBNAIL,
    draw_annotated,
    draw_dropped,
    outlines_in,
    thumbnail_size,
)

RED = (214, 40, 40)


def red_pixels(drawn: np.ndarray) -> np.ndarray:
    return (drawn == RED).all(axis=2)


def test_thumbnails_fit_and_keep_the_aspect_ratio() -> None:
    assert thumbnail_size(640, 480) == THUMBNAIL == (400, 300)
    assert thumbnail_size(480, 640) == (225, 300)
    assert thumbnail_size(20, 10) == (400, 200)
    assert thumbnail_size(10_000, 1) == (400, 1)


def test_labels_align_with_an_image_of_reduced_size() -> None:
    image = np.zeros((60, 80, 3), np.uint8)  # half the size of its labels
    image[20:40, 40:60] = 200
    labels = np.zeros((120, 160), np.uint8)
    labels[40:80, 80:120] = 1
    whole = draw_annotated(image, labels)
    assert whole.shape == (300, 400, 3)
    # The middle of the square shows both; its border is opaque.
    mixed = 0.65 * 200 + 0.35 * PALETTE[1]
    np.testing.assert_allclose(whole[150, 250], mixed, atol=2)
    assert (whole[100, 202:295] == PALETTE[1]).all()
    assert (whole[20, 20] == 0).all()
    crop = draw_annotated(image, labels, (84, 44, 116, 68))
    np.testing.assert_allclose(crop, np.broadcast_to(mixed, crop.shape), atol=10)


def test_without_an_image_annotations_are_drawn_on_a_dark_area() -> None:
    labels = np.zeros((30, 40), np.uint8)
    labels[10:20, 10:20] = 2
    drawn = draw_dropped(40, 30, labels=labels)
    assert drawn.shape == (300, 400, 3)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 3  # dark, class, its outline
    assert (drawn[100, 150] == PALETTE[2]).all()


def test_outlines_beyond_the_image_are_drawn_next_to_it() -> None:
    image = np.full((30, 40, 3), 90, np.uint8)
    drawn = draw_dropped(40, 30, image=image, outlines=[[(30, 10), (60, 10), (60, 20)]])
    width = drawn.shape[1]
    assert width == 400 and drawn.shape[0] == 200  # 60 x 30 pixels
    assert red_pixels(drawn)[:, int(width * 0.9) :].any()
    assert (drawn[190, 20] == 90).all() and not (drawn[190, 390] == 90).all()
    far = draw_dropped(40, 30, outlines=[[(1e8, -1e8), (-1e8, 5), (3, 1e8)]])
    assert far.shape == (300, 400, 3) and red_pixels(far).any()


def test_a_single_point_is_visible() -> None:
    assert red_pixels(draw_dropped(40, 30, outlines=[[(20, 15)]])).sum() > 10


@pytest.mark.parametrize(
    ("segmentation", "outlines"),
    [
        ([[1, 2, 3, 4, 5, 6]], [[(1, 2), (3, 4), (5, 6)]]),
        ([[1, 2, 3, 4, 5]], [[(1, 2), (3, 4)]]),
        ([[1, float("nan"), 3, 4]], [[(3, 4)]]),
        ([[1, float("inf"), 10**400, 4, 7, 8]], [[(7, 8)]]),
        ([[True, 2], ["a", "b"], None, 5, {}], []),
        ([1, 2, 3, 4], []),
        ([[]], []),
        ([], []),
        (None, []),
        ("text", []),
        ({"size": [2, 2], "counts": [4]}, []),
    ],
)
def test_the_valid_points_of_malformed_polygons_are_drawn(segmentation: Any, outlines: Any) -> None:
    assert outlines_in(json.dumps(segmentation).encode()) == outlines


@pytest.mark.parametrize("content", [b"", b"[[1,", b"\xff", b"[" * 100_000, b"[[" + b"9" * 5000])
def test_invalid_json_has_no_outlines(content: bytes) -> None:
    assert outlines_in(content) == []
