"""Warnings about a selection."""

import logging
from pathlib import Path
from typing import Any

import pytest

from cocoseg.curation.selection import Selection
from cocoseg.curation.selection_log import log_selection, mostly_crowd
from tests.coco_files import annotation, image, select_from, write_instances

SMALL = [[0, 0, 2, 0, 2, 2, 0, 2]]  # 4 pixels
LARGE = [[0, 0, 10, 0, 10, 10, 0, 10]]  # 100 pixels


def selected(tmp_path: Path, annotations: list[Any], **options: Any) -> Selection:
    images = [image(1), image(2), image(3)]
    path = write_instances(tmp_path / "a.json", images, annotations)
    return select_from(path, out_of_bounds="clip", **options)


def warnings_of(selection: Selection, caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.WARNING):
        log_selection(selection, [])
    return [record.getMessage() for record in caplog.records]


def test_clipping_by_more_than_a_tenth_of_the_side_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    annotations = [
        annotation(1, 1, [[5, 5, 22, 5, 20, 9]]),  # a tenth of the width
        annotation(2, 2, [[5, 5, 19, 5, 19, 12]]),  # a fifth of the height
        annotation(3, 3, [[5, 5, 22.1, 5, 20, 9]]),
    ]
    selection = selected(tmp_path, annotations)
    (warning,) = warnings_of(selection, caplog)
    assert warning == (
        "2 annotations extend beyond their images by more than a tenth of the side, first "
        "annotation 2 of 2.jpg: most likely the entry has another size than the image"
    )
    assert selection.summary()["clipped"] == {"annotations": 3, "largest": 2.1}


def test_images_with_annotations_of_unknown_position_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    annotations = [
        annotation(1, 1),
        annotation(2, 1, None),
        annotation(3, 2, None),  # alone: its image is not kept
        annotation(4, 3),
        annotation(5, 3, None, bbox=[10, 2, 5, 5]),
    ]
    _, ignored, unknown = warnings_of(selected(tmp_path, annotations), caplog)
    assert ignored == (
        "1 rejected annotations in 1 images: their pixels are ignored, not background"
    )
    assert unknown.startswith("1 rejected annotations have no known position")
    assert unknown.endswith(": in 1.jpg")


def test_classes_are_mostly_crowd_by_pixels_not_by_annotations(tmp_path: Path) -> None:
    annotations = [
        # cat: 100 of 112 pixels
        *(annotation(n, 1, SMALL) for n in range(3)),
        annotation(3, 1, LARGE, iscrowd=1),
        # dog: 12 of 112 pixels
        *(annotation(n, 2, SMALL, category_id=20, iscrowd=1) for n in range(4, 7)),
        annotation(7, 2, LARGE, category_id=20),
        # cow: exactly half
        *(annotation(8 + n, 3, SMALL, category_id=30, iscrowd=n) for n in (0, 1)),
    ]
    instances = selected(tmp_path, annotations, classes="all").instances
    assert mostly_crowd(instances) == ["cat"]
    assert mostly_crowd(instances, limit=0.1) == ["cat", "dog", "cow"]
