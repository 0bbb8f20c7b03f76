"""Data warnings, each for one planted problem."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cocoseg.coco.instances import Instances
from cocoseg.coco.rejections import UNUSABLE_IMAGES, Reason, Rejection
from cocoseg.curation.splits import SplitSummary, summarize_splits
from cocoseg.reports.data.warnings import DataWarning, find_data_warnings
from tests.coco_files import annotation, image, select_from, write_instances
from tests.data_statistics import measured

BLOB = [[20.0, 20.0, 60.0, 24.0, 70.0, 70.0, 30.0, 60.0]]
USUAL = [image(n, 100, 80) for n in range(1, 31)]
"""Thirty images: 20 for train, 5 for val, 5 for test."""


def cats(*without: int, **others: Any) -> list[dict[str, Any]]:
    return [annotation(n, n, BLOB, **others) for n in range(1, 31) if n not in without]


def selected(
    directory: Path,
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    classes: tuple[str, ...] = ("cat",),
) -> tuple[Instances, dict[str, SplitSummary]]:
    """The selection and the content of metrics/split.json."""
    path = write_instances(directory / "x.json", images, annotations)
    selection = select_from(path, classes).instances
    stems = [i.stem for i in selection.images]
    splits = {"train": stems[:20], "val": stems[20:25], "test": stems[25:]}
    return selection, summarize_splits(selection, splits)


def data_warnings(
    directory: Path,
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    classes: tuple[str, ...] = ("cat",),
    rejections: Sequence[Rejection] = (),
) -> list[DataWarning]:
    selection, splits = selected(directory, images, annotations, classes)
    return find_data_warnings(measured(selection, directory / "masks"), splits, rejections)


def test_unusable_images_come_first(tmp_path: Path) -> None:
    rejections = [
        Rejection("image", 1, None, Reason.IMAGE_NOT_FOUND),
        Rejection("image", 2, None, Reason.IMAGE_DAMAGED),
        Rejection("image", 3, None, Reason.IMAGE_DAMAGED),
        Rejection("annotation", 4, 4, Reason.POLYGON_ODD),
    ]
    first, second = data_warnings(tmp_path, USUAL, cats(), rejections=rejections)
    assert first.text == ("3 images were dropped as unusable: 2 image damaged, 1 image not found")
    assert second.text == "1 annotation was dropped as invalid: 1 polygon odd"


def test_all_reasons_of_unusable_images_give_a_warning_and_no_others(tmp_path: Path) -> None:
    selection, splits = selected(tmp_path, USUAL, cats())
    data = measured(selection, tmp_path / "masks")
    warned = {
        reason
        for reason in Reason
        if find_data_warnings(data, splits, [Rejection("image", 1, None, reason)])
    }
    assert warned == UNUSABLE_IMAGES
    assert {Reason.ORIENTATION_UNKNOWN, Reason.SIZE_MISSING} < warned


def test_ordinary_data_has_no_warning(tmp_path: Path) -> None:
    assert data_warnings(tmp_path, USUAL, cats()) == []


@pytest.mark.parametrize(
    ("changed", "entries", "text", "where"),
    [
        (
            {},
            [annotation(99, 5, [[3.0, 3.0, 6.0, 3.0, 6.0, 6.0]])],
            "1 annotation has fewer than 16 pixels",
            ["5.jpg"],
        ),
        (
            {},
            [annotation(98, 5, [[3.0, 3.0, 6.0, 3.0, 6.0, 6.0]]), annotation(99, 4, [[3.0] * 6])],
            "2 annotations have fewer than 16 pixels",
            ["4.jpg", "5.jpg"],
        ),
        (
            {},
            [annotation(99, 7, BLOB)],
            "1 object is annotated twice with identical pixels, under the same class",
            ["7.jpg"],
        ),
        (
            {},
            [annotation(99, 8, [[0.0, 0.0, 100.0, 0.0, 100.0, 80.0, 0.0, 80.0]], iscrowd=1)],
            "1 image has more than half of the pixels ignored",
            ["8.jpg"],
        ),
        (
            {},
            [annotation(99, 9, [[1.0, 1.0, 30.0, 1.0, 30.0, 18.0, 1.0, 18.0]])],
            "1 of 31 annotations is a plain rectangle: a box, not an outline",
            ["9.jpg"],
        ),
        (
            {},
            [annotation(99, 9, [[0.0, 0.0, 100.0, 0.0, 100.0, 80.0, 2.0, 80.0]])],
            "1 annotation covers more than 95% of the image",
            ["9.jpg"],
        ),
        (
            {3: image(3, 240, 70)},
            [],
            "1 image is more than 3 times as long as wide",
            ["3.jpg"],
        ),
        (
            {3: image(3, 240, 200), 6: image(6, 201, 190)},
            [],
            "The longer side of 2 images is more than twice the median of 100 pixels",
            ["3.jpg", "6.jpg"],
        ),
    ],
)
def test_a_planted_problem_gives_a_warning_with_its_images(
    tmp_path: Path,
    changed: dict[int, dict[str, Any]],
    entries: list[dict[str, Any]],
    text: str,
    where: list[str],
) -> None:
    images = [changed.get(entry["id"], entry) for entry in USUAL]
    found = data_warnings(tmp_path, images, [*cats(), *entries])
    assert DataWarning(text, where) in found


def test_objects_with_two_classes_come_first_and_one_class_is_hidden(tmp_path: Path) -> None:
    dogs = [annotation(100 + n, n, BLOB, category_id=20) for n in (2, 4)]
    shapes = [[[2.0, 2.0, 40.0, 4.0, 30.0, 50.0 + n]] for n in range(31)]
    others = [annotation(200 + n, n, shapes[n], category_id=20) for n in range(5, 31)]
    found = data_warnings(tmp_path, USUAL, [*cats(), *dogs, *others], ("cat", "dog"))
    texts = [warning.text for warning in found]
    assert texts[0] == "2 objects are annotated twice with identical pixels, under two classes"
    assert found[0].images == ["2.jpg", "4.jpg"]
    assert (
        "2 images have objects of a class that the mask does not show, because other objects cover "
        "them"
    ) in texts


def test_absent_missing_and_rare_classes_are_listed(tmp_path: Path) -> None:
    dog = annotation(99, 1, BLOB, category_id=20)
    found = data_warnings(tmp_path, USUAL, [*cats(1), dog], ("cat", "dog", "cow"))
    assert [warning.text for warning in found] == [
        "No image shows cow",
        "val has no image of dog, which cannot be validated",
        "test has no image of dog, which cannot be scored",
        "1 class has fewer than 10 images: dog (1)",
        "cat is in 29 times as many images as dog",
    ]


@pytest.mark.parametrize("few", [9, 10])
def test_a_class_with_fewer_than_ten_images_is_listed(tmp_path: Path, few: int) -> None:
    with_dog = [*range(1, few - 1), 21, 26]
    dogs = [annotation(100 + n, n, BLOB, category_id=20) for n in with_dog]
    found = data_warnings(tmp_path, USUAL, [*cats(*with_dog), *dogs], ("cat", "dog"))
    expected = ["1 class has fewer than 10 images: dog (9)"] if few == 9 else []
    assert [warning.text for warning in found] == expected


def test_invalid_annotations_are_counted_by_reason_and_the_rarest_are_summarized(
    tmp_path: Path,
) -> None:
    counts = {"rle_size": 1200, "polygon_odd": 3, "rle_counts": 3, "bbox_only": 2}
    counts |= {"segmentation_empty": 1, "segmentation_missing": 1, "excluded": 9}
    rejections = [
        Rejection("annotation", 1, number, Reason(name))  # type: ignore[call-arg]
        for name, count in counts.items()
        for number in range(count)
    ]
    (found,) = data_warnings(tmp_path, USUAL, cats(), rejections=rejections)
    assert found.text == (
        "1,210 annotations were dropped as invalid: 1,200 rle size, 3 polygon odd, 3 rle counts, "
        "2 bbox only, 1 segmentation empty and 1 more"
    )


def test_a_class_of_crowd_regions_gives_a_warning_unless_they_are_painted(tmp_path: Path) -> None:
    selection, splits = selected(tmp_path, USUAL, cats(iscrowd=1))
    ignored, painted = (
        find_data_warnings(measured(selection, tmp_path / crowd, crowd=crowd), splits, [])
        for crowd in ("ignore", "paint")
    )
    assert [warning.text for warning in ignored] == [
        "No mask shows a class: a model cannot learn anything from them",
        "Most annotated pixels of cat are crowd regions (iscrowd: 1), which are not painted: set "
        "mask.crowd to paint if your labeling tool writes iscrowd for masks",
    ]
    assert len(ignored[1].images) == 30
    assert painted == []


def test_a_class_that_is_hidden_in_all_masks_is_named(tmp_path: Path) -> None:
    dogs = [annotation(100 + n, n, BLOB, category_id=20) for n in range(1, 31)]
    found = data_warnings(tmp_path, USUAL, [*cats(), *dogs], ("cat", "dog"))
    assert found[0].text == "No mask shows cat, although there are annotations"


@pytest.mark.parametrize("crowds", [15, 16])
def test_crowd_regions_of_up_to_half_of_the_pixels_give_no_warning(
    tmp_path: Path, crowds: int
) -> None:
    entries = [annotation(n, n, BLOB, iscrowd=int(n <= crowds)) for n in range(1, 31)]
    found = data_warnings(tmp_path, USUAL, entries)
    assert [warning.text.startswith("Most annotated") for warning in found] == [True] * (
        crowds - 15
    )
