"""What is said about odd data, each oddity planted alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cocoseg.curation.splits import summarize_splits
from cocoseg.reports.data.warnings import DataWarning, find_data_warnings
from tests.coco_files import annotation, image, select_from, write_instances
from tests.results.inspection.test_statistics import measured

BLOB = [[20.0, 20.0, 60.0, 24.0, 70.0, 70.0, 30.0, 60.0]]
USUAL = [image(n, 100, 80) for n in range(1, 31)]
"""Thirty images, each with a cat; the last ten are of val and of test, half and half."""


def cats(*without: int, **others: Any) -> list[dict[str, Any]]:
    return [annotation(n, n, BLOB, **others) for n in range(1, 31) if n not in without]


def data_warnings(
    tmp_path: Path,
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    classes: tuple[str, ...] = ("cat",),
    unusable: Mapping[str, int] | None = None,
    **invalid: int,
) -> list[DataWarning]:
    path = write_instances(tmp_path / "x.json", images, annotations)
    selection = select_from(path, classes).instances
    stems = [i.stem for i in selection.images]
    splits = {"train": stems[:20], "val": stems[20:25], "test": stems[25:]}
    data = measured(selection, tmp_path / "masks")
    return find_data_warnings(data, summarize_splits(selection, splits), invalid, unusable or {})


def test_photos_that_cannot_be_used_come_first(tmp_path: Path) -> None:
    unusable = {"photo_damaged": 2, "photo_not_found": 1}
    first, *_ = data_warnings(tmp_path, USUAL, cats(), unusable=unusable, no_area=3)
    assert first.text == (
        "3 images were dropped for want of a photo that can be used: "
        "2 photo damaged, 1 photo not found"
    )


def test_ordinary_data_has_none(tmp_path: Path) -> None:
    assert data_warnings(tmp_path, USUAL, cats()) == []


@pytest.mark.parametrize(
    ("changed", "entries", "text", "where"),
    [
        (
            {},
            [annotation(99, 5, [[3.0, 3.0, 6.0, 3.0, 6.0, 6.0]])],
            "1 annotation is smaller than 16 pixels",
            ["5.jpg"],
        ),
        (
            {},
            [annotation(98, 5, [[3.0, 3.0, 6.0, 3.0, 6.0, 6.0]]), annotation(99, 4, [[3.0] * 6])],
            "2 annotations are smaller than 16 pixels",
            ["4.jpg", "5.jpg"],
        ),
        (
            {},
            [annotation(99, 7, BLOB)],
            "1 object is annotated twice under the same class, with the very same pixels",
            ["7.jpg"],
        ),
        (
            {},
            [annotation(99, 8, [[0.0, 0.0, 100.0, 0.0, 100.0, 80.0, 0.0, 80.0]], iscrowd=1)],
            "1 image is more than half void: most of their pixels are not learned from",
            ["8.jpg"],
        ),
        (
            {},
            [annotation(99, 9, [[1.0, 1.0, 30.0, 1.0, 30.0, 18.0, 1.0, 18.0]])],
            "1 of the 31 annotations is a plain rectangle: a box rather than an outline",
            ["9.jpg"],
        ),
        (
            {},
            [annotation(99, 9, [[0.0, 0.0, 100.0, 0.0, 100.0, 80.0, 2.0, 80.0]])],
            "1 annotation fills more than 95% of the image",
            ["9.jpg"],
        ),
        (
            {3: image(3, 240, 70)},
            [],
            "1 photo is more than 3 times as long as wide",
            ["3.jpg"],
        ),
        (
            {3: image(3, 240, 200), 6: image(6, 201, 190)},
            [],
            "2 photos are larger than twice the usual 100 pixels of the longer side",
            ["3.jpg", "6.jpg"],
        ),
    ],
)
def test_what_is_planted_is_found_named_and_placed(
    tmp_path: Path,
    changed: dict[int, dict[str, Any]],
    entries: list[dict[str, Any]],
    text: str,
    where: list[str],
) -> None:
    images = [changed.get(entry["id"], entry) for entry in USUAL]
    found = data_warnings(tmp_path, images, [*cats(), *entries])
    assert DataWarning(text, where) in found


def test_two_classes_for_the_same_pixels_come_first_and_hide_one(tmp_path: Path) -> None:
    dogs = [annotation(100 + n, n, BLOB, category_id=20) for n in (2, 4)]
    shapes = [[[2.0, 2.0, 40.0, 4.0, 30.0, 50.0 + n]] for n in range(31)]
    others = [annotation(200 + n, n, shapes[n], category_id=20) for n in range(5, 31)]
    found = data_warnings(tmp_path, USUAL, [*cats(), *dogs, *others], ("cat", "dog"))
    texts = [warning.text for warning in found]
    assert texts[0] == ("2 objects are annotated under two classes, with the very same pixels")
    assert found[0].images == ["2.jpg", "4.jpg"]
    assert (
        "In 2 images the mask shows nothing of a class that is annotated there: others lie over it"
    ) in texts


def test_classes_that_are_missing_rare_or_nowhere_are_named(tmp_path: Path) -> None:
    dog = annotation(99, 1, BLOB, category_id=20)
    found = data_warnings(tmp_path, USUAL, [*cats(1), dog], ("cat", "dog", "cow"))
    assert [warning.text for warning in found] == [
        "No image shows cow: asked for, but not in the data",
        "val has no image of dog, which cannot be validated",
        "test has no image of dog, which cannot be scored",
        "1 class has fewer than 10 images: dog (1)",
        "cat is in 29 times as many images as dog",
    ]


def test_invalid_annotations_are_summed_up(tmp_path: Path) -> None:
    (found,) = data_warnings(tmp_path, USUAL, cats(), polygon_odd=2, rle_size=1200)
    assert found.text == "1,202 annotations were dropped as invalid: 1,200 rle size, 2 polygon odd"


def test_crowd_regions_alone_are_no_trouble(tmp_path: Path) -> None:
    found = data_warnings(tmp_path, USUAL, cats(iscrowd=1))
    assert [warning.text for warning in found] == []
