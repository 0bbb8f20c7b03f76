"""Why entries are dropped, and which images are chosen."""

import csv
import json
import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from cocoseg.coco.instances import (
    MAX_IMAGE_PIXELS,
    InvalidSegmentation,
    decode_counts,
    images_by_class,
    rarest_class_by_image,
    read_instances,
)
from cocoseg.core.errors import UserError
from cocoseg.curation.selection import (
    Selection,
    log_rejections,
    read_exclusions,
    read_rejections,
    warn_of_unknown,
    write_rejections,
    write_selection,
)
from cocoseg.sources.synthetic.scenes import annotations_json
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


# --- Reasons for which annotations are dropped --------------------------------------------------

CROWD = {"size": [10, 20], "counts": [50, 100, 50]}
INVALID: list[tuple[str, Any, str]] = [
    ("segmentation_missing", None, ""),
    ("segmentation_empty", [], ""),
    ("segmentation_empty", [[]], ""),
    ("segmentation_empty", [*SQUARE, []], ""),
    ("segmentation_malformed", "[[1, 2, 3, 4, 5, 6]]", "no list of lists of numbers"),
    ("segmentation_malformed", "", "no list of lists of numbers"),
    ("segmentation_malformed", [1, 2, 3, 4, 5, 6], "no list of lists of numbers"),
    ("segmentation_malformed", [[1, 2, 3, 4, 5, "6"]], "no list of lists of numbers"),
    ("segmentation_malformed", [[1, 2, 3, 4, 5, True]], "no list of lists of numbers"),
    ("segmentation_malformed", [[1, 2, 3, 4, 5, None]], "no list of lists of numbers"),
    ("segmentation_malformed", True, "no list of lists of numbers"),
    ("polygon_too_short", [[1, 2, 3, 4]], "2 points"),
    ("polygon_odd", [[1, 2, 3, 4, 5, 6, 7]], "7 coordinates"),
    ("polygon_odd", [[1, 2, 3]], "3 coordinates"),
    ("coordinate_not_finite", [[1, 2, 3, 4, 5, float("nan")]], ""),
    ("coordinate_not_finite", [[1, 2, 3, 4, 5, float("inf")]], ""),
    ("coordinate_not_finite", [[1, 2, 3, 4, 5, 10**400]], ""),
    ("coordinate_negative", [[1, 2, 3, 4, 5, -0.5]], "-0.5"),
    ("coordinate_beyond_image", [[1, 2, 20.01, 4, 5, 6]], "x 20.01 > width 20"),
    ("coordinate_beyond_image", [[1, 2, 3, 10.01, 5, 6]], "y 10.01 > height 10"),
    ("coordinate_beyond_image", [*SQUARE, [1, 2, 3, 1e300, 5, 6]], "y 1e+300 > height 10"),
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
def test_an_annotation_is_dropped_under_the_reason_of_its_segmentation(
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
        [[0, 0, 20, 0, 20, 10, 0, 10]],  # the whole image: its far edges are coordinates too
        [[0, 0, 0, 0, 0, 0]],
        SQUARE * 50,
        CROWD,
        {"size": [10, 20], "counts": [0, 0, 0, 200]},
        {"size": [10, 20], "counts": "X6"},
        {"counts": [200], "size": [10, 20], "more": {}},
    ],
)
def test_valid_segmentations_are_kept(segmentation: Any, tmp_path: Path) -> None:
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
def test_an_annotation_of_wrong_types_is_malformed_and_spoils_no_other(
    entry: Any, tmp_path: Path
) -> None:
    file = write_instances(tmp_path / "a.json", [image(1)], [entry, annotation(2, 1)])
    selection = select_from(file)
    assert [r.reason for r in selection.rejections] == ["malformed_annotation"]
    assert [a.id for a in selection.instances.annotations] == [2]


def test_annotations_of_other_classes_are_not_looked_at(tmp_path: Path) -> None:
    broken = annotation(1, 1, "nonsense", category_id=30)
    unreadable = annotation(2, 1, category_id=30, iscrowd="yes")
    file = write_instances(tmp_path / "a.json", [image(1)], [broken, unreadable, annotation(3, 1)])
    assert rejected(select_from(file, ("cat",))) == []


def test_an_annotation_of_no_image_and_a_repeated_id_are_dropped(tmp_path: Path) -> None:
    file = write_instances(
        tmp_path / "a.json", [image(1)], [annotation(1, 1), annotation(1, 1), annotation(2, 9)]
    )
    assert rejected(select_from(file)) == [
        ("annotation", 1, 1, "duplicate_annotation"),
        ("annotation", 9, 2, "image_missing"),
    ]


# --- Reasons for which images are dropped -------------------------------------------------------

BAD_IMAGES: list[tuple[str, Any]] = [
    ("malformed_image", image(2, width=0)),
    ("malformed_image", image(2, height=-1)),
    ("malformed_image", image(2, width=MAX_IMAGE_PIXELS + 1, height=1)),
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
def test_an_unusable_image_is_dropped_under_its_reason(
    reason: str, entry: Any, tmp_path: Path
) -> None:
    file = write_instances(tmp_path / "a.json", [image(1), entry], [annotation(1, 1)])
    selection = select_from(file)
    assert rejected(selection) == [("image", entry["id"], None, reason)]
    assert selection.instances.images[0].file_name == "1.jpg"


def test_masks_of_two_images_never_share_a_name_where_case_does_not_count(tmp_path: Path) -> None:
    images = [image(1, file_name="a.jpg"), image(2, file_name="A.jpg")]
    file = write_instances(tmp_path / "a.json", images, [annotation(1, 1)])
    assert rejected(select_from(file)) == [("image", 2, None, "duplicate_image")]


def test_the_largest_image_is_usable(tmp_path: Path) -> None:
    file = write_instances(
        tmp_path / "a.json", [image(1, MAX_IMAGE_PIXELS // 10, 10)], [annotation(1, 1)]
    )
    assert rejected(select_from(file)) == []


def test_images_are_dropped_for_what_is_annotated(tmp_path: Path) -> None:
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
        "classes": {"cat": {"images": 2, "instances": 5}, "dog": {"images": 0, "instances": 0}},
    }


def test_a_crowd_counts_as_one_instance(tmp_path: Path) -> None:
    annotations = [annotation(1, 1), annotation(2, 1, CROWD, iscrowd=1)]
    file = write_instances(tmp_path / "a.json", [image(1), image(2)], annotations)
    assert len(select_from(file, max_instances=2).instances.images) == 1
    with pytest.raises(UserError, match=r"no image is left of 2 \(.*\): see filter\.classes"):
        select_from(file, max_instances=1)


def test_an_unknown_class_is_refused_with_those_there_are(tmp_path: Path) -> None:
    file = write_instances(tmp_path / "a.json", [image(1)], [annotation(1, 1)])
    with pytest.raises(
        UserError, match=r"unknown class 'hat'; the annotations have: cat, dog, cow"
    ):
        select_from(file, ("cat", "hat"))


def test_an_id_of_two_selected_categories_is_refused(tmp_path: Path) -> None:
    categories = [*CATEGORIES, {"id": 10, "name": "rat"}]
    file = write_instances(tmp_path / "a.json", [image(1)], [annotation(1, 1)], categories)
    for classes in (("cat", "dog"), ("rat",)):
        with pytest.raises(UserError, match="'cat' and 'rat' have the same id, 10"):
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


# --- What is written ----------------------------------------------------------------------------


def test_the_selection_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    file.write_text(annotations_json(50, 96, 64, seed=0))
    selection = select_from(file, CLASSES)
    write_selection(tmp_path / "selection.json", selection)
    again = read_instances(tmp_path / "selection.json")
    assert again.rejections == []
    assert msgspec.json.encode(again.instances) == msgspec.json.encode(selection.instances)
    assert len(again.instances.annotations) > 30


def test_rejected_csv_has_a_row_for_every_drop(tmp_path: Path) -> None:
    annotations = [annotation(1, 1), annotation(2, 1, [[1, 2, 3, 4, 5, -6]]), annotation(3, 3, [])]
    images = [image(1), image(2), image(3), image(4, file_name='../"a",\n.jpg')]
    selection = select_from(write_instances(tmp_path / "a.json", images, annotations))
    write_rejections(tmp_path / "rejected.csv", selection.rejections)
    with (tmp_path / "rejected.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image_id", "annotation_id", "reason", "detail"]
    assert sorted(rows) == sorted(
        [
            ["1", "2", "coordinate_negative", "-6"],
            ["3", "3", "segmentation_empty", ""],
            ["2", "", "no_selected_class", ""],
            ["3", "", "no_valid_annotation", ""],
            ["4", "", "unsafe_file_name", "'../\"a\",\\n.jpg'"],
        ]
    )


def test_the_console_gets_a_line_for_each_reason_not_for_each_drop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    annotations = [annotation(1, 1), *(annotation(n, 1, []) for n in range(2, 100))]
    selection = select_from(write_instances(tmp_path / "a.json", [image(1)], annotations))
    with caplog.at_level(logging.INFO):
        log_rejections(selection)
    assert [record.getMessage() for record in caplog.records] == [
        "98 invalid: segmentation_empty, first annotation 2 of image 1",
        "1 of 1 images kept with 1 annotations; dropped images: none",
    ]


# --- Counts -------------------------------------------------------------------------------------


def is_valid(entry: dict[str, Any], its_image: dict[str, Any] | None) -> bool:
    """An independent reading of DESIGN.md."""
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
            # pycocotools encodes the list as the same string again.
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
        "images_dropped": dict(drops),
        "annotations_total": sum(a["category_id"] in ids for a in document["annotations"]),
        "annotations_kept": len(kept_annotations),
        "classes": classes,
    }


def assert_counts_are_independent(document: dict[str, Any], file: Path) -> dict[str, Any]:
    file.write_text(json.dumps(document))
    summary = select_from(file, CLASSES, max_images=10_000).summary()
    dropped = summary.pop("annotations_dropped")
    assert summary == independent_counts(document, max_instances=10)
    assert sum(dropped.values()) == summary["annotations_total"] - summary["annotations_kept"]
    return summary


@needs_mirror
@pytest.mark.parametrize(
    ("split", "with_class", "too_many", "annotations", "crowds"),
    [("train2017", 119, 19, 527, 9), ("val2017", 52, 10, 249, 7)],
)
def test_the_counts_of_the_mirror_are_right(
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


def test_the_counts_of_the_sample_are_right_with_all_its_malformed_annotations(
    tmp_path: Path,
) -> None:
    document = json.loads(annotations_json(120, 96, 64, seed=0))
    summary = assert_counts_are_independent(document, tmp_path / "instances.json")
    assert set(summary["images_dropped"]) == {
        "no_selected_class",
        "no_valid_annotation",
        "too_many_instances",
    }


# --- What a person has taken out ----------------------------------------------------------------


def test_excluded_images_and_annotations_are_taken_out_before_anything_is_counted(
    tmp_path: Path,
) -> None:
    annotations = [
        *(annotation(n, 1) for n in (10, 11, 12)),  # one is excluded, so that two are left
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
        ("annotation", 2, 21, "segmentation_empty"),  # could not be used anyway
        ("annotation", 3, 30, "excluded"),
        ("image", 2, None, "excluded"),
        ("image", 3, None, "excluded"),  # its only annotation is
        ("image", 4, None, "excluded"),
    ]
    assert selection.summary()["images_dropped"] == {"excluded": 3}
    assert selection.summary()["annotations_dropped"] == {"excluded": 3, "segmentation_empty": 1}


def test_without_exclusions_the_selection_is_that_of_before(tmp_path: Path) -> None:
    file = write_instances(tmp_path / "a.json", [image(1)], [annotation(1, 1)])
    (tmp_path / "none.csv").write_text("image_id,annotation_id\n")
    exclude = read_exclusions(tmp_path / "none.csv")
    assert select_from(file, exclude=exclude) == select_from(file)


def test_rows_of_rejected_and_suspects_are_exclusions_as_they_are(tmp_path: Path) -> None:
    table = tmp_path / "exclude.csv"
    rows = ["image_id,annotation_id", "7,71,excluded,", "8,,missing,1,2", "", "9,0", "-3"]
    table.write_bytes("\ufeff".encode() + "\r\n".join(rows).encode())  # as a spreadsheet saves it
    assert read_exclusions(table) == {(7, 71), (8, None), (9, 0), (-3, None)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1 should begin with image_id,annotation_id"),
        (b"1,2\n", "line 1 should begin with image_id,annotation_id"),
        (b"image_id,annotation_id\n1,2\n3,b.jpg\n", r"line 3: .* \(is '3,b.jpg'\)"),
        (b"image_id,annotation_id\n,5\n", "line 2: "),
        (b"image_id,annotation_id\n1.5,5\n", "line 2: "),
        (b"image_id,annotation_id\n\xff,5\n", "no CSV file in UTF-8"),
        (None, "filter.exclude: .* not found"),
    ],
)
def test_a_bad_list_of_exclusions_is_one_line_that_says_where(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    table = tmp_path / "exclude.csv"
    if content is not None:
        table.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_exclusions(table)
    assert "\n" not in str(caught.value)


def test_exclusions_that_do_not_exist_are_counted_in_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    annotations = [annotation(10, 1), annotation(11, 1, category_id=30), annotation(12, 1, "?")]
    read = read_instances(write_instances(tmp_path / "a.json", [image(1)], annotations))
    known = {(1, None), (1, 10), (1, 11), (1, 12)}
    with caplog.at_level(logging.WARNING):
        warn_of_unknown(read, known, Path("exclude.csv"))
        assert caplog.text == ""
        warn_of_unknown(read, known | {(1, 0), (10, None)}, Path("exclude.csv"))
    (record,) = caplog.records
    assert record.getMessage() == (
        "exclude.csv: 2 of 6 entries are not among the annotations, such as image 1, annotation 0"
    )


# --- Properties ---------------------------------------------------------------------------------

segmentations = st.sampled_from([SQUARE, CROWD, [], None, [[1, 2, 3]], [[0, 0, 99, 0, 5, 5]]])
entries = st.builds(
    lambda image_id, category_id, segmentation: (image_id, category_id, segmentation),
    st.integers(1, 13),
    st.sampled_from([10, 10, 10, 20, 20, 30]),
    segmentations,
)
documents = st.lists(entries, min_size=1, max_size=40).map(
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


def select_or_none(
    tmp_path: Path, images: list[Any], annotations: list[Any], **options: Any
) -> Selection | None:
    try:
        return select_from(write_instances(tmp_path / "a.json", images, annotations), **options)
    except UserError:
        return None


@given(
    documents, st.integers(1, 4), st.integers(1, 6), st.sampled_from(["rare", "random", "first"])
)
@quickly
def test_kept_and_dropped_add_up_to_what_the_file_has(
    tmp_path: Path, document: Any, max_instances: int, max_images: int, prefer: str
) -> None:
    images, annotations = document
    options = {"max_instances": max_instances, "max_images": max_images, "prefer": prefer}
    selection = select_or_none(tmp_path, images, annotations, **options)
    if selection is None:
        return
    summary = selection.summary()
    of_classes = [a for a in annotations if a["category_id"] != 30]
    assert summary["images_kept"] + sum(summary["images_dropped"].values()) == len(images)
    dropped = sum(summary["annotations_dropped"].values())
    assert summary["annotations_kept"] + dropped == len(of_classes)
    # Not just the numbers: every entry is either kept or dropped, once.
    kept = [a.id for a in selection.instances.annotations]
    lost = [r.annotation_id for r in selection.rejections if r.kind == "annotation"]
    assert sorted(kept + lost) == [a["id"] for a in of_classes]  # type: ignore[operator]
    assert summary["images_kept"] <= max_images


@given(documents, st.sampled_from(["rare", "random"]), st.randoms(use_true_random=False))
@quickly
def test_the_choice_of_images_does_not_depend_on_the_order_of_the_file(
    tmp_path: Path, document: Any, prefer: str, shuffler: random.Random
) -> None:
    images, annotations = document
    options = {"max_instances": 3, "max_images": 3, "prefer": prefer}
    before = select_or_none(tmp_path, images, annotations, **options)
    shuffled = [
        shuffler.sample(images, len(images)),
        shuffler.sample(annotations, len(annotations)),
    ]
    after = select_or_none(tmp_path, *shuffled, **options)
    assert (before is None) == (after is None)
    if before and after:
        assert before.instances.images == after.instances.images
        assert before.summary() == after.summary()


@given(documents, st.integers(1, 6))
@quickly
def test_rare_never_drops_a_rarer_image_for_one_of_commoner_classes(
    tmp_path: Path, document: Any, max_images: int
) -> None:
    everything = select_or_none(tmp_path, *document, prefer="rare")
    limited = select_or_none(tmp_path, *document, prefer="rare", max_images=max_images)
    if everything is None or limited is None:
        return
    classes: dict[int, set[int]] = {}
    for entry in everything.instances.annotations:
        classes.setdefault(entry.image_id, set()).add(entry.category_id)
    frequency = Counter(label for of_image in classes.values() for label in of_image)
    rarest = {i: min(frequency[label] for label in of_image) for i, of_image in classes.items()}
    kept = {entry.id for entry in limited.instances.images}
    assert len(kept) == min(max_images, len(classes))
    dropped = classes.keys() - kept
    if dropped:
        assert max(rarest[i] for i in kept) <= min(rarest[i] for i in dropped)


def test_first_keeps_the_first_of_the_file(tmp_path: Path) -> None:
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
def test_another_seed_draws_other_images(prefer: Literal["rare", "random"], tmp_path: Path) -> None:
    ids = range(1, 41)
    file = write_instances(
        tmp_path / "a.json", [image(n) for n in ids], [annotation(n, n) for n in ids]
    )
    draws = [
        [i.id for i in select_from(file, prefer=prefer, max_images=20, seed=s).instances.images]
        for s in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_of_equally_rare_classes_an_image_counts_for_the_first(tmp_path: Path) -> None:
    annotations = [annotation(1, 1, category_id=20), annotation(2, 1, category_id=10)]
    file = write_instances(tmp_path / "a.json", [image(1)], annotations)
    images_of = images_by_class(select_from(file).instances.annotations)
    assert rarest_class_by_image(images_of) == {1: 1}


def test_all_classes_are_those_that_are_used_by_id(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("classes", [("void",), "all"])
def test_a_class_is_not_called_void(
    tmp_path: Path, classes: tuple[str, ...] | Literal["all"]
) -> None:
    categories = [{"id": 10, "name": "void"}, {"id": 20, "name": "dog"}]
    annotations = [annotation(1, 1), annotation(2, 1, category_id=20)]
    file = write_instances(tmp_path / "a.json", [image(1)], annotations, categories)
    with pytest.raises(UserError, match="void is what label 255 is called"):
        select_from(file, classes)
    assert len(select_from(file, ("dog",)).instances.annotations) == 1


def test_a_class_that_could_name_no_file_is_refused(tmp_path: Path) -> None:
    categories = [{"id": 10, "name": "c" * 201}]
    file = write_instances(tmp_path / "a.json", [image(1)], [annotation(1, 1)], categories)
    with pytest.raises(UserError, match=r"'c{40}'… is too long for the name of a file"):
        select_from(file, "all")


def test_what_download_has_rejected_stays_out_for_its_reason(tmp_path: Path) -> None:
    images = [image(1), image(2, rejected=["photo_not_found", "2.jpg"])]
    annotations = [
        annotation(1, 1),
        annotation(2, 1, None, rejected=["bbox_only", ""]),
        annotation(3, 2),
    ]
    file = write_instances(tmp_path / "a.json", images, annotations)
    rejections = select_from(file, "all").rejections
    assert [(r.kind, r.reason, r.detail) for r in rejections] == [
        ("image", "photo_not_found", "2.jpg"),
        ("annotation", "bbox_only", ""),
        ("annotation", "image_missing", ""),
    ]
    with pytest.raises(UserError, match=r"of 2 \(1 photo_not_found, .*, first 2\.jpg\): see"):
        select_from(write_instances(tmp_path / "a.json", images, []), ("cat",))


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"image_id,annotation_id\nx,y\n", b"\xff"])
def test_a_damaged_list_of_rejections_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rejected.csv"
    path.write_bytes(content)
    if content:
        with pytest.raises(UserError, match=r"rejected\.csv is damaged: remove it"):
            read_rejections(path)
    else:
        assert read_rejections(path) == []


def test_rejections_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(annotations_json(200, 64, 48, seed=1))
    written = select_from(path, ("person", "car"), max_images=50).rejections
    write_rejections(tmp_path / "rejected.csv", written)
    found = read_rejections(tmp_path / "rejected.csv")
    assert len(found) > 50
    assert [(r.kind, r.image_id, r.annotation_id, r.reason, r.detail) for r in found] == [
        (r.kind, r.image_id, r.annotation_id, r.reason, r.detail) for r in written
    ]
