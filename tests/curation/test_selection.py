"""Reasons for rejection, and selection of images."""

import contextlib
import csv
import json
import logging
import random
import shutil
from collections import Counter
from contextlib import chdir
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from cocoseg.coco.instances import (
    InvalidSegmentation,
    decode_counts,
    images_by_class,
    rarest_class_by_image,
    read_instances,
)
from cocoseg.coco.rejections import COLUMNS, write_rejections
from cocoseg.core.errors import UserError
from cocoseg.core.images import MAX_IMAGE_PIXELS
from cocoseg.curation.exclusions import read_exclusions, warn_of_unknown
from cocoseg.curation.selection import (
    NothingSelected,
    Prefer,
    Selection,
    _numbers,
    write_selection,
)
from cocoseg.curation.selection_log import log_selection
from cocoseg.sources.synthetic.scenes import annotations_json
from stages import filter as filter_stage
from tests import ROOT
from tests.coco_files import (
    CATEGORIES,
    SQUARE,
    annotation,
    image,
    select_from,
    write_instances,
)
from tests.mirror import mirror_document, needs_mirror

CLASSES = ("person", "bicycle", "car", "motorcycle", "airplane")


def rejected(selection: Selection) -> list[tuple[str, int | None, int | None, str]]:
    return [(r.kind, r.image_id, r.annotation_id, r.reason) for r in selection.rejections]


# --- Rejected annotations -----------------------------------------------------------------------

CROWD = {"size": [10, 20], "counts": [50, 100, 50]}
INVALID: list[tuple[str, Any, str]] = [
    ("segmentation_missing", None, ""),
    ("segmentation_empty", [], ""),
    ("segmentation_empty", [[]], ""),
    ("segmentation_malformed", "[[1, 2, 3, 4, 5, 6]]", "not a list of lists of numbers"),
    ("segmentation_malformed", "", "not a list of lists of numbers"),
    ("segmentation_malformed", [1, 2, 3, 4, 5, 6], "not a list of lists of numbers"),
    ("segmentation_malformed", [[1, 2, 3, 4, 5, "6"]], "not a list of lists of numbers"),
    ("segmentation_malformed", [[1, 2, 3, 4, 5, True]], "not a list of lists of numbers"),
    ("segmentation_malformed", [[1, 2, 3, 4, 5, None]], "not a list of lists of numbers"),
    ("segmentation_malformed", True, "not a list of lists of numbers"),
    ("polygon_too_short", [[1, 2, 3, 4]], "2 points"),
    ("polygon_odd", [[1, 2, 3, 4, 5, 6, 7]], "7 coordinates"),
    ("polygon_odd", [[1, 2, 3]], "3 coordinates"),
    ("coordinate_not_finite", [[1, 2, 3, 4, 5, float("nan")]], ""),
    ("coordinate_not_finite", [[1, 2, 3, 4, 5, float("inf")]], ""),
    ("coordinate_not_finite", [[1, 2, 3, 4, 5, 10**400]], ""),
    ("out_of_bounds", [[1, 2, 3, 4, 5, -0.5]], "by 0.5 pixels"),
    ("out_of_bounds", [[1, 2, 20.02, 4, 5, 6]], "by 0.02 pixels"),
    ("out_of_bounds", [*SQUARE, [1, 2, 3, 70, 5, 6]], "by 60 pixels"),
    ("out_of_bounds", [*SQUARE, [1, 2, 3, 1e300, 5, 6]], "by 1e+300 pixels"),
    ("outline_too_long", [[0, 0, 20, 10] * 60_000], "more than 1048576 pixels"),
    ("rle_malformed", {"size": [10, 20]}, "counts"),
    ("rle_malformed", {"counts": [200]}, "size"),
    ("rle_malformed", {"size": [10, 20], "counts": None}, "counts"),
    ("rle_malformed", {"size": [10, 20], "counts": [100.5, 99.5]}, "counts"),
    ("rle_malformed", {"size": [10, 20], "counts": [2**64]}, "counts"),
    ("rle_size", {"size": [20, 10], "counts": [200]}, "size [20, 10], image [10, 20]"),
    ("rle_counts", {"size": [10, 20], "counts": []}, "add up to 0, not 200"),
    ("rle_counts", {"size": [10, 20], "counts": [150]}, "add up to 150, not 200"),
    ("rle_counts", {"size": [10, 20], "counts": [250, -50]}, "a negative count: -50"),
    ("rle_counts", {"size": [10, 20], "counts": [2**32, 200]}, "not 200"),
    ("rle_counts", {"size": [10, 20], "counts": "~~é"}, "undecodable string"),
    ("rle_counts", {"size": [10, 20], "counts": "o" * 20}, "undecodable string"),
    ("rle_counts", {"size": [10, 20], "counts": "h"}, "ends in the middle"),
    ("rle_counts", {"size": [10, 20], "counts": ""}, "add up to 0, not 200"),
]


@pytest.mark.parametrize(
    ("reason", "segmentation", "detail"), INVALID, ids=[f"{r}-{d}" for r, _, d in INVALID]
)
def test_an_annotation_is_rejected_for_its_segmentation(
    reason: str, segmentation: Any, detail: str, tmp_path: Path
) -> None:
    file = write_instances(
        tmp_path / "a.json", [image(1)], [annotation(1, 1, segmentation), annotation(2, 1)]
    )
    selection = select_from(file)
    assert rejected(selection) == [("annotation", 1, 1, reason)]
    assert detail in selection.rejections[0].detail
    assert [a.id for a in selection.instances.annotations] == [2]


@pytest.mark.parametrize(
    "segmentation",
    [
        [[0, 0, 20, 0, 20, 10, 0, 10]],  # the whole image, including the far edges
        [[0, 0, 0, 0, 0, 0]],
        [[0, 0, 20.01, 0, 20, 10.01, -0.01, 10]],  # rounding noise
        SQUARE * 50,
        [*SQUARE, [], [1, 2], [1, 2, 3, 4]],
        CROWD,
        {"size": [10, 20], "counts": [0, 0, 0, 200]},
        {"size": [10, 20], "counts": "X6"},
        {"counts": [200], "size": [10, 20], "more": {}},
    ],
)
def test_valid_segmentations_are_selected(segmentation: Any, tmp_path: Path) -> None:
    file = write_instances(tmp_path / "a.json", [image(1)], [annotation(1, 1, segmentation)])
    assert rejected(select_from(file)) == []


MALFORMED_ANNOTATIONS: list[Any] = [
    5,
    None,
    [],
    {},
    {**annotation(1, 1), "id": "1"},
    {**annotation(1, 1), "id": True},
    {**annotation(1, 1), "id": 2**63},
    {**annotation(1, 1), "image_id": 1.5},
    {**annotation(1, 1), "iscrowd": 2},
    {**annotation(1, 1), "iscrowd": None},
    {key: value for key, value in annotation(1, 1).items() if key != "category_id"},
]


@pytest.mark.parametrize("entry", MALFORMED_ANNOTATIONS)
def test_an_annotation_with_wrong_types_is_rejected_alone(entry: Any, tmp_path: Path) -> None:
    file = write_instances(tmp_path / "a.json", [image(1)], [entry, annotation(2, 1)])
    selection = select_from(file)
    assert [r.reason for r in selection.rejections] == ["malformed_annotation"]
    assert [a.id for a in selection.instances.annotations] == [2]


def test_invalid_annotations_of_other_classes_are_ignored(tmp_path: Path) -> None:
    broken = annotation(1, 1, "nonsense", category_id=30)
    unreadable = annotation(2, 1, category_id=30, iscrowd="yes")
    file = write_instances(tmp_path / "a.json", [image(1)], [broken, unreadable, annotation(3, 1)])
    assert rejected(select_from(file, ("cat",))) == []


def test_annotations_with_an_unknown_image_or_a_repeated_id_are_rejected(tmp_path: Path) -> None:
    file = write_instances(
        tmp_path / "a.json", [image(1)], [annotation(1, 1), annotation(1, 1), annotation(2, 9)]
    )
    assert rejected(select_from(file)) == [
        ("annotation", 1, 1, "duplicate_annotation"),
        ("annotation", 9, 2, "unknown_image"),
    ]


# --- Rejected images ----------------------------------------------------------------------------

BAD_IMAGES: list[tuple[str, Any]] = [
    ("malformed_image", image(2, width=0)),
    ("malformed_image", image(2, height=-1)),
    ("image_too_large", image(2, width=MAX_IMAGE_PIXELS + 1, height=1)),
    ("malformed_image", image(2, width=2**70)),
    ("malformed_image", image(2, width=20.5)),
    ("malformed_image", image(2, file_name=None)),
    ("malformed_image", {"id": 2}),
    ("unsafe_file_name", image(2, file_name="")),
    ("unsafe_file_name", image(2, file_name="\ud800.jpg")),
    ("unsafe_file_name", image(2, file_name="..")),
    ("unsafe_file_name", image(2, file_name=".hidden.jpg")),
    ("unsafe_file_name", image(2, file_name="../2.jpg")),
    ("unsafe_file_name", image(2, file_name="/etc/passwd")),
    ("unsafe_file_name", image(2, file_name="a\\2.jpg")),
    ("unsafe_file_name", image(2, file_name="C:2.jpg")),
    ("unsafe_file_name", image(2, file_name="2\0.jpg")),
    ("unsafe_file_name", image(2, file_name="2\n.jpg")),
    ("unsafe_file_name", image(2, file_name="2.")),
    ("unsafe_file_name", image(2, file_name="é" * 101)),
    ("duplicate_image", image(1, file_name="2.jpg")),
    ("duplicate_image", image(2, file_name="1.jpg")),
    ("duplicate_image", image(2, file_name="1.png")),
]


@pytest.mark.parametrize(
    ("reason", "entry"), BAD_IMAGES, ids=[f"{r}-{n}" for n, (r, _) in enumerate(BAD_IMAGES)]
)
def test_an_unusable_image_is_rejected(reason: str, entry: Any, tmp_path: Path) -> None:
    file = write_instances(tmp_path / "a.json", [image(1), entry], [annotation(1, 1)])
    selection = select_from(file)
    assert rejected(selection) == [("image", entry["id"], None, reason)]
    assert selection.instances.images[0].file_name == "1.jpg"


def test_file_names_that_differ_only_in_case_are_duplicates(tmp_path: Path) -> None:
    images = [image(1, file_name="a.jpg"), image(2, file_name="A.jpg")]
    file = write_instances(tmp_path / "a.json", images, [annotation(1, 1)])
    assert rejected(select_from(file)) == [("image", 2, None, "duplicate_image")]


def test_an_image_with_the_maximum_number_of_pixels_is_usable(tmp_path: Path) -> None:
    file = write_instances(
        tmp_path / "a.json", [image(1, MAX_IMAGE_PIXELS // 10, 10)], [annotation(1, 1)]
    )
    assert rejected(select_from(file)) == []


def test_images_are_rejected_for_their_annotations_and_counted(tmp_path: Path) -> None:
    annotations = [
        *(annotation(n, 1) for n in range(10, 13)),
        annotation(20, 2, category_id=30),
        annotation(30, 3, []),
        *(annotation(n, 4) for n in range(40, 44)),
        annotation(50, 5),
        annotation(51, 5, CROWD, iscrowd=1),
        annotation(52, 5, []),
        annotation(60, 6, iscrowd="?"),
    ]
    images = [image(n) for n in range(1, 8)]
    selection = select_from(
        write_instances(tmp_path / "a.json", images, annotations), max_instances=3
    )
    assert [kept.id for kept in selection.instances.images] == [1, 5]
    assert {r.image_id: r.reason for r in selection.rejections if r.kind == "image"} == {
        2: "no_selected_class",
        3: "no_valid_annotation",
        4: "too_many_instances",
        6: "no_valid_annotation",
        7: "no_selected_class",
    }
    assert selection.summary() == {
        "images_total": 7,
        "images_kept": 2,
        "images_empty": 0,
        "images_dropped": {
            "no_selected_class": 2,
            "no_valid_annotation": 2,
            "too_many_instances": 1,
        },
        "annotations_total": 12,
        "annotations_kept": 5,
        "annotations_dropped": {
            "malformed_annotation": 1,
            "segmentation_empty": 2,
            "too_many_instances": 4,
        },
        "clipped": {"annotations": 0, "largest": 0},
        "ignored": {"annotations": 0, "images": 0},
        "classes": {"cat": {"images": 2, "instances": 5}, "dog": {"images": 0, "instances": 0}},
    }


def test_a_crowd_counts_as_one_instance(tmp_path: Path) -> None:
    annotations = [annotation(1, 1), annotation(2, 1, CROWD, iscrowd=1)]
    file = write_instances(tmp_path / "a.json", [image(1), image(2)], annotations)
    assert len(select_from(file, max_instances=2).instances.images) == 1
    with pytest.raises(UserError, match=r"no images left .* Raise `filter\.max_instances`\."):
        select_from(file, max_instances=1)


def test_the_error_for_an_unknown_class_lists_the_categories(tmp_path: Path) -> None:
    file = write_instances(tmp_path / "a.json", [image(1)], [annotation(1, 1)])
    with pytest.raises(
        UserError, match=r"unknown class 'hat'; the annotations have: cat, dog, cow"
    ):
        select_from(file, ("cat", "hat"))


def test_categories_with_the_same_id_are_refused_if_one_is_selected(tmp_path: Path) -> None:
    categories = [*CATEGORIES, {"id": 10, "name": "rat"}]
    file = write_instances(tmp_path / "a.json", [image(1)], [annotation(1, 1)], categories)
    for classes in (("cat", "dog"), ("rat",)):
        with pytest.raises(UserError, match="'cat' and 'rat' have the same id, 10, in"):
            select_from(file, classes)
    file = write_instances(
        tmp_path / "a.json", [image(1)], [annotation(1, 1, category_id=20)], categories
    )
    assert select_from(file, ("dog",)).instances.annotations


def test_labels_follow_the_order_of_the_classes(tmp_path: Path) -> None:
    annotations = [annotation(1, 1, category_id=10), annotation(2, 1, category_id=20)]
    file = write_instances(tmp_path / "a.json", [image(1)], annotations)
    for classes, labels in {("cat", "dog"): [1, 2], ("dog", "cow", "cat"): [3, 1]}.items():
        selection = select_from(file, classes)
        assert [a.category_id for a in selection.instances.annotations] == labels
        assert [(c.id, c.name) for c in selection.instances.categories] == list(
            enumerate(classes, start=1)
        )


# --- Files and log ------------------------------------------------------------------------------


def test_a_selection_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    file.write_text(annotations_json(50, 96, 64, seed=0))
    selection = select_from(file, CLASSES)
    write_selection(tmp_path / "selection.json", selection.instances)
    again = read_instances(tmp_path / "selection.json")
    assert again.rejections == []
    for ours in (again.instances.annotations, selection.instances.annotations):
        for entry in ours:  # boxes are those of the painted pixels
            entry.bbox = msgspec.Raw(b"null")
    assert msgspec.json.encode(again.instances) == msgspec.json.encode(selection.instances)
    assert len(again.instances.annotations) > 30


def test_rejected_csv_has_a_row_for_every_rejection(tmp_path: Path) -> None:
    annotations = [
        annotation(1, 1),
        annotation(2, 1, [[1, 2, 3, 4, 5, -6]], source_id="a2"),
        annotation(3, 3, [], category_id=20),
        annotation(4, 1, iscrowd="?", category_id=20),
    ]
    images = [
        image(1, annotation_file="a.json"),
        image(2, annotation_file="b.json", source_id="x/2"),
        image(3),
        image(4, file_name='../"a",\r\n\ud800.jpg'),
    ]
    path = write_instances(tmp_path / "a.json", images, annotations)
    selection = select_from(path)
    read = read_instances(path)
    write_rejections(tmp_path / "rejected.csv", selection.rejections, read.instances)
    with (tmp_path / "rejected.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    detail = {reason: text for _, _, reason, text, *_ in rows}
    assert detail["out_of_bounds"] == "by 6 pixels"
    # Without the detail: ids, reason, file name, category, file and ids of the source.
    assert sorted([*row[:3], *row[4:]] for row in rows) == [
        ["1", "2", "out_of_bounds", "1.jpg", "cat", "a.json", "1", "a2"],
        ["1", "4", "malformed_annotation", "1.jpg", "dog", "a.json", "1", ""],
        ["2", "", "no_selected_class", "2.jpg", "", "b.json", "x/2", ""],
        ["3", "", "no_valid_annotation", "3.jpg", "", "", "3", ""],
        ["3", "3", "segmentation_empty", "3.jpg", "dog", "", "3", "3"],
        ["4", "", "unsafe_file_name", '../"a",\\r\\n\\ud800.jpg', "", "", "4", ""],
    ]


def test_the_log_has_one_line_per_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    invalid = [annotation(0, 1, None), *(annotation(n, 1, []) for n in range(2, 100))]
    annotations = [annotation(1, 1), *invalid]
    selection = select_from(write_instances(tmp_path / "a.json", [image(1)], annotations))
    with caplog.at_level(logging.INFO):
        log_selection(selection, ["cat"])
    assert [record.getMessage() for record in caplog.records] == [
        "98 invalid: segmentation_empty, first annotation 2 of image 1. Export polygons or masks.",
        "1 invalid: segmentation_missing, first annotation 0 of image 1. Export polygons or masks.",
        "99 rejected annotations have no known position, so their objects count as background: in "
        "1.jpg",
        "most annotated pixels of class cat are crowd regions (iscrowd: 1), which are ignored "
        "unless mask.crowd is paint: set it if your labeling tool writes iscrowd for masks",
        "1 of 1 images kept with 1 annotations; rejected images: none",
    ]


# --- Counts -------------------------------------------------------------------------------------


def is_valid(entry: dict[str, Any], its_image: dict[str, Any] | None) -> bool:
    """An independent implementation of the checks."""
    segmentation = entry.get("segmentation")
    if its_image is None or not segmentation:
        return False
    width, height = its_image["width"], its_image["height"]
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        if isinstance(counts, str):
            try:
                as_list = decode_counts(counts)
            except InvalidSegmentation:
                return False
            # pycocotools encodes the list as the same string.
            encoded = coco_mask.frPyObjects({"size": [1, 1], "counts": as_list}, 1, 1)
            assert encoded["counts"].decode() == counts
            counts = as_list
        sums = sum(counts) == width * height and all(count >= 0 for count in counts)
        return sums and segmentation["size"] == [height, width]
    for polygon in segmentation:
        if len(polygon) < 6 or len(polygon) % 2 == 1:
            return False
        for x, y in zip(polygon[::2], polygon[1::2], strict=True):
            if not (0 <= x <= width and 0 <= y <= height):
                return False
    return True


def independent_counts(document: dict[str, Any], max_instances: int) -> dict[str, Any]:
    ids = {c["id"]: c["name"] for c in document["categories"] if c["name"] in CLASSES}
    images = {entry["id"]: entry for entry in document["images"]}
    drops: Counter[str] = Counter()
    kept_annotations: list[dict[str, Any]] = []
    for image_id in images:
        of_image = [a for a in document["annotations"] if a["image_id"] == image_id]
        of_classes = [a for a in of_image if a["category_id"] in ids]
        valid = [a for a in of_classes if is_valid(a, images[image_id])]
        if not of_classes:
            drops["no_selected_class"] += 1
        elif not valid:
            drops["no_valid_annotation"] += 1
        elif len(valid) > max_instances:
            drops["too_many_instances"] += 1
        else:
            kept_annotations += valid
    classes = {}
    for category_id, name in ids.items():
        shown = [a["image_id"] for a in kept_annotations if a["category_id"] == category_id]
        classes[name] = {"images": len(set(shown)), "instances": len(shown)}
    return {
        "images_total": len(images),
        "images_kept": len({a["image_id"] for a in kept_annotations}),
        "images_empty": 0,
        "images_dropped": dict(drops),
        "annotations_total": sum(a["category_id"] in ids for a in document["annotations"]),
        "annotations_kept": len(kept_annotations),
        "clipped": {"annotations": 0, "largest": 0},
        "classes": classes,
    }


def assert_counts_are_independent(document: dict[str, Any], file: Path) -> dict[str, Any]:
    file.write_text(json.dumps(document))
    summary = select_from(file, CLASSES, max_images=10_000).summary()
    dropped, ignored = summary.pop("annotations_dropped"), summary.pop("ignored")
    assert ignored["annotations"] <= sum(dropped.values())
    assert summary == independent_counts(document, max_instances=10)
    assert sum(dropped.values()) == summary["annotations_total"] - summary["annotations_kept"]
    return summary


@needs_mirror
@pytest.mark.parametrize(
    ("split", "with_class", "too_many", "annotations", "crowds"),
    [("train2017", 119, 19, 527, 9), ("val2017", 52, 10, 249, 7)],
)
def test_the_counts_of_coco_images_are_right(
    split: str, with_class: int, too_many: int, annotations: int, crowds: int, tmp_path: Path
) -> None:
    document = mirror_document(split)
    summary = assert_counts_are_independent(document, tmp_path / "instances.json")
    dropped = summary["images_dropped"]
    assert summary["images_total"] - dropped["no_selected_class"] == with_class
    assert dropped["too_many_instances"] == too_many
    assert summary["annotations_total"] == annotations
    file = tmp_path / "instances.json"
    everything = select_from(file, CLASSES, max_instances=10_000, max_images=10_000)
    assert sum(a.iscrowd for a in everything.instances.annotations) == crowds


def test_the_counts_of_the_sample_with_its_malformed_annotations_are_right(
    tmp_path: Path,
) -> None:
    document = json.loads(annotations_json(120, 96, 64, seed=0))
    summary = assert_counts_are_independent(document, tmp_path / "instances.json")
    assert set(summary["images_dropped"]) == {
        "no_selected_class",
        "no_valid_annotation",
        "too_many_instances",
    }


# --- Outlines beyond the image ------------------------------------------------------------------

BEYOND = [[15, 2, 24, 2, 24, 8, 15, 8]]  # four pixels to the right of 20 x 10


def test_an_outline_beyond_the_image_is_dropped_or_clipped(tmp_path: Path) -> None:
    annotations = [annotation(1, 1), annotation(2, 1, BEYOND), annotation(3, 2, BEYOND)]
    file = write_instances(tmp_path / "a.json", [image(1), image(2)], annotations)
    dropped = select_from(file)
    assert [a.id for a in dropped.instances.annotations] == [1]
    assert dropped.summary()["annotations_dropped"] == {"out_of_bounds": 2}
    assert dropped.instances.images[0].ignored == [(15, 2, 20, 8)]
    clipped = select_from(file, out_of_bounds="clip")
    assert rejected(clipped) == []
    assert clipped.summary()["clipped"] == {"annotations": 2, "largest": 4}
    assert clipped.summary()["ignored"] == {"annotations": 0, "images": 0}


def test_clipped_annotations_of_rejected_images_are_not_counted(tmp_path: Path) -> None:
    annotations = [annotation(1, 1), annotation(2, 2, BEYOND), annotation(3, 2)]
    file = write_instances(tmp_path / "a.json", [image(1), image(2)], annotations)
    selection = select_from(file, out_of_bounds="clip", max_instances=1)
    assert selection.clipped == []


@pytest.mark.parametrize(
    "polygon",
    [
        [21, 2, 24, 2, 24, 8],
        [-9, 2, -1, 2, -1, 8],
        [5, -9, 9, -9, 9, -1],
        [5, 11, 9, 11, 9, 19],
        # Five times these coordinates are just within and just beyond 32 bits.
        [429496700, 2, 429496740, 2, 429496740, 8],
        [-429496740, 2, -429496700, 2, -429496740, 8],
    ],
)
def test_an_outline_without_pixels_in_the_image_is_rejected(
    polygon: list[float], tmp_path: Path
) -> None:
    annotations = [annotation(1, 1), annotation(2, 1, [polygon])]
    file = write_instances(tmp_path / "a.json", [image(1)], annotations)
    selection = select_from(file, out_of_bounds="clip")
    assert rejected(selection) == [("annotation", 1, 2, "out_of_bounds")]
    assert selection.instances.images[0].ignored == []


# --- Ignored pixels -----------------------------------------------------------------------------


def test_rejected_annotations_of_selected_images_are_ignored(tmp_path: Path) -> None:
    annotations = [
        annotation(1, 1),
        annotation(2, 1, None, bbox=[10.5, 1, 4, 20]),  # clipped to the image
        annotation(3, 1, None, iscrowd="?", bbox=[0, 9, 100, 1]),  # malformed
        annotation(4, 1, [[12, 3, 15, 3, 15, 9]]),  # excluded
        annotation(5, 1, {"size": [10, 20], "counts": [190, 10]}),  # excluded, no box
        annotation(6, 1, None, bbox=[1, 1, 2, 2], category_id=30),  # another class
        annotation(7, 1, None, bbox=[30, 1, 2, 2]),  # outside the image
        annotation(8, 1, None),
        annotation(9, 2, None, bbox=[1, 1, 2, 2]),  # its image is rejected
        annotation(10, 3),
    ]
    file = write_instances(tmp_path / "a.json", [image(n) for n in (1, 2, 3)], annotations)
    selection = select_from(file, ("cat",), exclude={(1, 4), (1, 5)})
    ignored = {i.id: sorted(i.ignored) for i in selection.instances.images}
    assert ignored == {1: [(0, 9, 20, 10), (10, 1, 15, 10), (12, 3, 15, 9), (19, 0, 20, 10)], 3: []}
    assert selection.summary()["ignored"] == {"annotations": 4, "images": 1}
    write_selection(tmp_path / "selection.json", selection.instances)
    again = read_instances(tmp_path / "selection.json").instances
    assert again.images == selection.instances.images


def test_a_box_around_a_valid_annotation_is_not_ignored(tmp_path: Path) -> None:
    annotations = [
        annotation(1, 1),  # from 2 to 8 in both directions
        annotation(2, 1, None, bbox=[2, 2, 6, 6]),
        annotation(3, 1, None, bbox=[1.2, 2, 6, 6]),
        annotation(4, 1, None, bbox=[2, 2, 9, 6]),
    ]
    file = write_instances(tmp_path / "a.json", [image(1)], annotations)
    assert select_from(file).instances.images[0].ignored == [(2, 2, 11, 8)]


def test_an_annotation_without_a_known_category_is_rejected_and_ignored(tmp_path: Path) -> None:
    annotations = [annotation(1, 1), annotation(2, 1, BEYOND, category_id=99)]
    file = write_instances(tmp_path / "a.json", [image(1)], annotations)
    selection = select_from(file)
    assert rejected(selection) == [("annotation", 1, 2, "unknown_category")]
    assert selection.rejections[0].detail == "category_id 99"
    assert selection.instances.images[0].ignored == [(15, 2, 20, 8)]


# --- Images without objects ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("with_objects", "without", "max_images", "fraction", "expected"),
    [
        (8, 10, 100, 0, (8, 0)),
        (8, 10, 100, 0.2, (8, 2)),
        (7, 10, 100, 0.2, (7, 1)),
        (8, 10, 100, 1, (8, 10)),
        (8, 1, 100, 0.2, (8, 1)),
        (80, 100, 10, 0, (10, 0)),
        (80, 100, 10, 0.2, (8, 2)),
        (80, 20, 10, 1, (8, 2)),  # in proportion to those available
        (95, 5, 20, 0.2, (19, 1)),
        (4, 100, 10, 0.2, (4, 1)),
        (1, 1000, 10, 1, (1, 9)),
        (5, 5, 1, 1, (1, 0)),
        (7, 3, 10, 0.3, (7, 3)),  # 0.3 is exact: 3 of 10
        (0, 9, 10, 0.5, (0, 0)),
    ],
)
def test_the_number_of_images_without_objects(
    with_objects: int, without: int, max_images: int, fraction: float, expected: tuple[int, int]
) -> None:
    assert _numbers(with_objects, without, max_images, fraction) == expected


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 80), st.integers(0, 20))
@settings(max_examples=300, deadline=None)
def test_images_without_objects_never_exceed_their_fraction(
    with_objects: int, without: int, max_images: int, twentieths: int
) -> None:
    kept, empty = _numbers(with_objects, without, max_images, twentieths / 20)
    assert 1 <= kept <= with_objects
    assert 0 <= empty <= without
    assert kept + empty <= max_images
    assert 20 * empty <= twentieths * (kept + empty)
    # None is left out without a reason.
    assert kept == with_objects or kept + empty == max_images


def some_empty(tmp_path: Path, **options: Any) -> Selection:
    """Select from six images with objects and four without."""
    images = [image(n) for n in (7, 1, 10, 2, 8, 3, 4, 9, 5, 6)]
    annotations = [annotation(n, n) for n in range(1, 7)]
    annotations.append(annotation(99, 9, category_id=30))  # of another class
    return select_from(write_instances(tmp_path / "a.json", images, annotations), **options)


def test_images_without_objects_are_drawn_by_the_seed_or_the_first(tmp_path: Path) -> None:
    def empty(**options: Any) -> list[int]:
        selection = some_empty(tmp_path, empty_fraction=0.25, **options)
        assert selection.summary()["images_empty"] == 2
        assert selection.summary()["images_dropped"] == {"over_empty_fraction": 2}
        return [kept.id for kept in selection.instances.images if kept.id > 6]

    assert empty(prefer="first") == [7, 10]
    draws = [empty(prefer="rare", seed=seed) for seed in range(10)]
    assert draws == [empty(prefer="random", seed=seed) for seed in range(10)]
    assert len(set(map(tuple, draws))) > 1


def test_images_without_objects_are_rejected_by_default_and_all_kept_by_1(tmp_path: Path) -> None:
    assert some_empty(tmp_path).summary()["images_dropped"] == {"no_selected_class": 4}
    everything = some_empty(tmp_path, empty_fraction=1).summary()
    assert (everything["images_kept"], everything["images_empty"]) == (10, 4)


def test_an_image_with_only_invalid_annotations_does_not_count_as_empty(tmp_path: Path) -> None:
    annotations = [annotation(1, 1), annotation(2, 2, []), annotation(3, 3)]
    file = write_instances(tmp_path / "a.json", [image(n) for n in (1, 2, 3)], annotations)
    selection = select_from(file, empty_fraction=1, exclude={(3, 3)})
    assert [kept.id for kept in selection.instances.images] == [1]
    assert selection.summary()["images_dropped"] == {"excluded": 1, "no_valid_annotation": 1}


# --- Nothing left -------------------------------------------------------------------------------


def test_the_error_for_nothing_left_names_the_reasons_of_annotations_and_a_remedy(
    tmp_path: Path,
) -> None:
    annotations = [
        *(annotation(n, 1, None, rejected=["bbox_only", ""]) for n in range(1200)),
        annotation(2000, 2, []),
        annotation(2001, 9),
    ]
    file = write_instances(tmp_path / "a.json", [image(n) for n in (1, 2, 3)], annotations)
    with pytest.raises(NothingSelected) as error:
        select_from(file, empty_fraction=1)
    assert str(error.value) == (
        "no images left after filtering 3: 2 no_valid_annotation, 1 no_selected_class; "
        "annotations: 1,200 bbox_only, 1 segmentation_empty, 1 unknown_image. The annotation has a "
        "bounding box but no outline. Export polygons or masks. See data/rejected.csv."
    )
    assert len(error.value.rejections) == 3 + 1202


def test_the_stage_writes_the_rejections_before_it_fails(tmp_path: Path) -> None:
    for directory in ("data/annotations", "metrics"):
        (tmp_path / directory).mkdir(parents=True)
    shutil.copy(ROOT / "presets/own_data.yaml", tmp_path / "params.yaml")
    exclude = yaml.safe_load((tmp_path / "params.yaml").read_text())["filter"]["exclude"]
    (tmp_path / exclude).parent.mkdir(exist_ok=True)
    (tmp_path / exclude).write_text("image_id,annotation_id\n")
    write_instances(
        tmp_path / "data/annotations/instances.json", [image(1)], [annotation(1, 1, [])]
    )
    with chdir(tmp_path), pytest.raises(NothingSelected):
        filter_stage.main()
    rows = (tmp_path / "data/rejected.csv").read_text().splitlines()
    assert [row.split(",")[2] for row in rows] == [
        "reason",
        "segmentation_empty",
        "no_valid_annotation",
    ]


# --- What other readers need --------------------------------------------------------------------


def test_areas_and_boxes_of_a_selection_are_those_of_the_painted_pixels(tmp_path: Path) -> None:
    annotations = [
        annotation(1, 1, bbox=[0, 0, 20, 10], area=3),  # both wrong
        annotation(2, 1, BEYOND),
        annotation(3, 1, [[1.2, 1.7, 6.4, 2.1, 3.3, 8.8], [10, 1, 13, 1, 13, 4]]),
        annotation(4, 1, CROWD, iscrowd=1),
        annotation(5, 1, [[0, 0, 0, 0, 0, 0]]),
    ]
    file = write_instances(tmp_path / "a.json", [image(1)], annotations)
    selection = select_from(file, out_of_bounds="clip")
    write_selection(tmp_path / "selection.json", selection.instances)
    with contextlib.redirect_stdout(None):
        coco = COCO(tmp_path / "selection.json")
    assert len(coco.anns) == 5
    for entry in coco.anns.values():
        encoded = coco.annToRLE(entry)
        assert entry["area"] == coco_mask.area(encoded)
        assert entry["bbox"] == coco_mask.toBbox(encoded).tolist()
    assert (coco.anns[2]["area"], coco.anns[2]["bbox"]) == (30, [15, 2, 5, 6])
    assert coco.getAnnIds(areaRng=[29, 31]) == [2]


# --- Exclusions ---------------------------------------------------------------------------------


def test_excluded_images_and_annotations_do_not_count_as_instances(
    tmp_path: Path,
) -> None:
    annotations = [
        *(annotation(n, 1) for n in (10, 11, 12)),  # two are left without the excluded one
        annotation(20, 2),
        annotation(21, 2, []),
        annotation(30, 3),
        annotation(40, 4, category_id=30),
        annotation(50, 5),
    ]
    file = write_instances(tmp_path / "a.json", [image(n) for n in range(1, 6)], annotations)
    exclude = {(1, 11), (2, None), (2, 21), (3, 30), (4, None), (5, 10)}
    selection = select_from(file, max_instances=2, exclude=exclude)
    assert [a.id for a in selection.instances.annotations] == [10, 12, 50]
    assert sorted(rejected(selection), key=str) == [
        ("annotation", 1, 11, "excluded"),
        ("annotation", 2, 20, "excluded"),
        ("annotation", 2, 21, "segmentation_empty"),  # invalid annotations keep their reason
        ("annotation", 3, 30, "excluded"),
        ("image", 2, None, "excluded"),
        ("image", 3, None, "excluded"),  # its only annotation is excluded
        ("image", 4, None, "excluded"),
    ]
    assert selection.summary()["images_dropped"] == {"excluded": 3}
    assert selection.summary()["annotations_dropped"] == {"excluded": 3, "segmentation_empty": 1}


def test_an_empty_list_of_exclusions_changes_nothing(tmp_path: Path) -> None:
    file = write_instances(tmp_path / "a.json", [image(1)], [annotation(1, 1)])
    (tmp_path / "none.csv").write_text("image_id,annotation_id\n")
    exclude = read_exclusions(tmp_path / "none.csv")
    assert select_from(file, exclude=exclude) == select_from(file)


def test_rows_of_other_tables_are_exclusions(tmp_path: Path) -> None:
    table = tmp_path / "exclude.csv"
    rows = ["image_id,annotation_id", "7,71,excluded,", "8,,missing,1,2", "", "9,0", "-3"]
    table.write_bytes("\ufeff".encode() + "\r\n".join(rows).encode())  # like a spreadsheet
    assert read_exclusions(table) == {(7, 71), (8, None), (9, 0), (-3, None)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: expected image_id,annotation_id at the start"),
        (b"1,2\n", "line 1: expected image_id,annotation_id at the start"),
        (b"image_id,annotation_id\n1,2\n3,b.jpg\n", r"line 3: .*, got '3,b.jpg'$"),
        (b"image_id,annotation_id\n,5\n", "line 2: "),
        (b"image_id,annotation_id\n1.5,5\n", "line 2: "),
        (b"image_id,annotation_id\n\xff,5\n", "not a CSV file in UTF-8"),
        (None, "filter.exclude: .* not found"),
    ],
)
def test_the_error_for_a_bad_list_of_exclusions_is_one_line_that_names_the_place(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    table = tmp_path / "exclude.csv"
    if content is not None:
        table.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_exclusions(table)
    assert "\n" not in str(caught.value)


def test_a_warning_counts_exclusions_that_do_not_exist(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    annotations = [
        annotation(10, 1),
        annotation(11, 1, category_id=30),
        annotation(12, 1, iscrowd=5),
    ]
    read = read_instances(write_instances(tmp_path / "a.json", [image(1)], annotations))
    known = {(1, None), (1, 10), (1, 11), (1, 12)}
    with caplog.at_level(logging.WARNING):
        warn_of_unknown(read, known, Path("exclude.csv"))
        assert caplog.text == ""
        warn_of_unknown(read, known | {(1, 0), (10, None)}, Path("exclude.csv"))
    (record,) = caplog.records
    assert record.getMessage() == (
        "exclude.csv: 2 of 6 entries are not in the annotations, the first: image 1, annotation 0"
    )


# --- Properties ---------------------------------------------------------------------------------

segmentations = st.sampled_from(
    [SQUARE, SQUARE, SQUARE, CROWD, [], None, [[1, 2, 3]], [[0, 0, 99, 0, 5, 5]]]
)
entries = st.builds(
    lambda image_id, category_id, segmentation: (image_id, category_id, segmentation),
    st.integers(1, 13),
    st.sampled_from([10, 10, 10, 20, 20, 30]),
    segmentations,
)
documents = st.lists(entries, min_size=5, max_size=40).map(
    lambda drawn: (
        [image(n) for n in range(1, 12)],
        [
            annotation(n, image_id, segmentation, category_id=category_id)
            for n, (image_id, category_id, segmentation) in enumerate(drawn)
        ],
    )
)
quickly = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def select_any(
    tmp_path: Path, images: list[Any], annotations: list[Any], **options: Any
) -> Selection:
    """Select, and reject examples from which nothing is left."""
    try:
        return select_from(write_instances(tmp_path / "a.json", images, annotations), **options)
    except UserError:
        reject()


@given(
    documents, st.integers(1, 4), st.integers(1, 6), st.sampled_from(["rare", "random", "first"])
)
@quickly
def test_every_entry_of_a_file_is_either_selected_or_rejected(
    tmp_path: Path, document: Any, max_instances: int, max_images: int, prefer: str
) -> None:
    images, annotations = document
    options = {"max_instances": max_instances, "max_images": max_images, "prefer": prefer}
    selection = select_any(tmp_path, images, annotations, **options)
    summary = selection.summary()
    of_classes = [a for a in annotations if a["category_id"] != 30]
    assert summary["images_kept"] + sum(summary["images_dropped"].values()) == len(images)
    dropped = sum(summary["annotations_dropped"].values())
    assert summary["annotations_kept"] + dropped == len(of_classes)
    # Not only the counts: each annotation occurs once.
    kept = [a.id for a in selection.instances.annotations]
    lost = [r.annotation_id for r in selection.rejections if r.kind == "annotation"]
    assert sorted(kept + lost) == [a["id"] for a in of_classes]  # type: ignore[operator]
    assert summary["images_kept"] <= max_images


@given(documents, st.sampled_from(["rare", "random"]), st.randoms(use_true_random=False))
@quickly
def test_selected_images_do_not_depend_on_the_order_of_the_file(
    tmp_path: Path, document: Any, prefer: str, shuffler: random.Random
) -> None:
    images, annotations = document
    options = {"max_instances": 3, "max_images": 3, "prefer": prefer}
    before = select_any(tmp_path, images, annotations, **options)
    shuffled = [
        shuffler.sample(images, len(images)),
        shuffler.sample(annotations, len(annotations)),
    ]
    after = select_from(write_instances(tmp_path / "b.json", *shuffled), **options)
    assert before.instances.images == after.instances.images
    assert before.summary() == after.summary()


@given(documents, st.integers(0, 20))
@quickly
def test_rare_prefers_images_with_rarer_classes(tmp_path: Path, document: Any, number: int) -> None:
    everything = select_any(tmp_path, *document, prefer="rare")
    assume(len(everything.instances.images) > 1)
    max_images = 1 + number % (len(everything.instances.images) - 1)
    limited = select_any(tmp_path, *document, prefer="rare", max_images=max_images)
    classes: dict[int, set[int]] = {}
    for entry in everything.instances.annotations:
        classes.setdefault(entry.image_id, set()).add(entry.category_id)
    frequency = Counter(label for of_image in classes.values() for label in of_image)
    rarest = {i: min(frequency[label] for label in of_image) for i, of_image in classes.items()}
    kept = {entry.id for entry in limited.instances.images}
    dropped = classes.keys() - kept
    assert len(kept) == max_images
    assert max(rarest[i] for i in kept) <= min(rarest[i] for i in dropped)


def test_rare_prefers_the_first_of_equally_rare_classes(tmp_path: Path) -> None:
    annotations = [annotation(n, n, category_id=10 * (1 + n % 2)) for n in range(12)]
    file = write_instances(tmp_path / "a.json", [image(n) for n in range(12)], annotations)
    for seed in range(5):
        selection = select_from(file, max_images=6, seed=seed)
        assert [kept.id for kept in selection.instances.images] == [0, 2, 4, 6, 8, 10]


def test_first_selects_the_first_images_of_the_file(tmp_path: Path) -> None:
    ids = [5, 3, 9, 1]
    annotations = [annotation(n, n) for n in ids]
    file = write_instances(tmp_path / "a.json", [image(n) for n in ids], annotations)
    selection = select_from(file, prefer="first", max_images=2)
    assert [kept.id for kept in selection.instances.images] == [3, 5]
    assert rejected(selection) == [
        ("image", 9, None, "over_max_images"),
        ("annotation", 9, 9, "over_max_images"),
        ("image", 1, None, "over_max_images"),
        ("annotation", 1, 1, "over_max_images"),
    ]


@pytest.mark.parametrize("prefer", ["rare", "random"])
def test_another_seed_selects_other_images(prefer: Prefer, tmp_path: Path) -> None:
    ids = range(1, 41)
    file = write_instances(
        tmp_path / "a.json", [image(n) for n in ids], [annotation(n, n) for n in ids]
    )
    draws = [
        [i.id for i in select_from(file, prefer=prefer, max_images=20, seed=s).instances.images]
        for s in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_of_equally_rare_classes_the_first_is_the_rarest(tmp_path: Path) -> None:
    annotations = [annotation(1, 1, category_id=20), annotation(2, 1, category_id=10)]
    file = write_instances(tmp_path / "a.json", [image(1)], annotations)
    images_of = images_by_class(select_from(file).instances.annotations)
    assert rarest_class_by_image(images_of) == {1: 1}


def test_all_classes_are_the_categories_with_annotations_by_id(tmp_path: Path) -> None:
    categories = [(5, "tree / 木"), (0, "animals"), (3, "background"), (2, "cat"), (7, "cat")]
    annotations = [
        annotation(id, 1, category_id=category) for id, category in enumerate((5, 3, 7, 2))
    ]
    file = write_instances(
        tmp_path / "a.json",
        [image(1)],
        annotations,
        [{"id": id, "name": name} for id, name in categories],
    )
    selection = select_from(file, "all")
    assert [(c.id, c.name) for c in selection.instances.categories] == [
        (1, "cat"),
        (2, "tree / 木"),
    ]
    assert [a.category_id for a in selection.instances.annotations] == [2, 1, 1]


def test_all_classes_are_at_most_254(tmp_path: Path) -> None:
    def select_all(count: int) -> Selection:
        categories = [{"id": n, "name": f"class {n}"} for n in range(count)]
        annotations = [annotation(n, 1, category_id=n) for n in range(count)]
        file = write_instances(tmp_path / "a.json", [image(1)], annotations, categories)
        return select_from(file, "all", max_instances=255)

    assert len(select_all(254).instances.categories) == 254
    with pytest.raises(UserError, match="255 classes, expected at most 254"):
        select_all(255)


@pytest.mark.parametrize("classes", [("ignored",), "all"])
def test_a_class_must_not_be_called_ignored(tmp_path: Path, classes: Any) -> None:
    categories = [{"id": 10, "name": "ignored"}, {"id": 20, "name": "dog"}]
    annotations = [annotation(1, 1), annotation(2, 1, category_id=20)]
    file = write_instances(tmp_path / "a.json", [image(1)], annotations, categories)
    with pytest.raises(UserError, match="'ignored' is the name of label 255"):
        select_from(file, classes)
    assert len(select_from(file, ("dog",)).instances.annotations) == 1


def test_a_class_name_that_is_too_long_for_a_file_name_is_refused(tmp_path: Path) -> None:
    categories = [{"id": 10, "name": "c" * 201}]
    file = write_instances(tmp_path / "a.json", [image(1)], [annotation(1, 1)], categories)
    with pytest.raises(UserError, match=r"'c{40}'… is too long for a file name"):
        select_from(file, "all")


def test_entries_that_the_source_rejected_keep_their_reason(tmp_path: Path) -> None:
    images = [image(1), image(2, rejected=["image_not_found", "2.jpg"])]
    annotations = [
        annotation(1, 1),
        annotation(2, 1, None, rejected=["bbox_only", ""]),
        annotation(3, 2),
    ]
    file = write_instances(tmp_path / "a.json", images, annotations)
    rejections = select_from(file, "all").rejections
    assert [(r.kind, r.reason, r.detail) for r in rejections] == [
        ("image", "image_not_found", "2.jpg"),
        ("annotation", "bbox_only", ""),
        ("annotation", "unknown_image", ""),
    ]
    with pytest.raises(UserError, match=r"2: 1 image_not_found, .* \(first: 2\.jpg\)\. "):
        select_from(write_instances(tmp_path / "a.json", images, []), ("cat",))
