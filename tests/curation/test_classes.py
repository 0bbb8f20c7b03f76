"""Classes that consist of one or several categories."""

from pathlib import Path
from typing import Any

import pytest

from cocoseg.coco.instances import Category, Instances, read_instances
from cocoseg.coco.rejections import write_rejections
from cocoseg.core.errors import UserError
from cocoseg.curation.classes import categories_of_classes
from cocoseg.curation.selection import write_selection
from tests.coco_files import annotation, image, select_from, write_instances

CATEGORIES = [
    {"id": 3, "name": "car", "supercategory": "vehicle"},
    {"id": 1, "name": "person", "supercategory": "human"},
    {"id": 6, "name": "bus", "supercategory": "vehicle"},
    {"id": 8, "name": "truck", "supercategory": "vehicle"},
    {"id": 9, "name": "sky"},
]
INSTANCES = Instances([], [], [Category(**category) for category in CATEGORIES])


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["bus", "car"], {"bus": {6}, "car": {3}}),
        (["person", {"vehicle": ["car", "truck"]}], {"person": {1}, "vehicle": {3, 8}}),
        ([{"vehicle": ["truck", "car"]}, "bus"], {"vehicle": {3, 8}, "bus": {6}}),
        ([{"vehicle": {"supercategory": "vehicle"}}], {"vehicle": {3, 6, 8}}),
        ([{"auto": ["car", "car"]}], {"auto": {3}}),
        ([{"car": ["truck"]}], {"car": {8}}),
    ],
)
def test_classes_are_sets_of_categories_in_the_order_of_their_labels(
    classes: Any, expected: dict[str, set[int]]
) -> None:
    assert list(categories_of_classes(INSTANCES, classes).items()) == list(expected.items())


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([{"vehicle": ["car", "tram"]}], "unknown class 'tram'; the annotations have: car, person"),
        ([{"a": {"supercategory": "food"}}], "supercategory 'food'; .* have: human, vehicle$"),
        (["car", {"vehicle": ["car"]}], "'car' belongs to both 'car' and 'vehicle'"),
        (
            [{"a": ["bus"]}, {"b": {"supercategory": "vehicle"}}],
            "'bus' belongs to both 'a' and 'b'",
        ),
        ([{"ignored": ["car"]}], "'ignored' is the name of label 255"),
        ([{"background": ["sky"]}], "'background' is the name of label 0"),
    ],
)
def test_classes_that_cannot_be_used_are_refused(classes: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"^filter\.classes: .*{message}"):
        categories_of_classes(INSTANCES, classes)


def test_annotations_of_a_merged_class_keep_the_name_of_their_category(tmp_path: Path) -> None:
    annotations = [
        annotation(1, 1, category_id=8),
        annotation(2, 1, category_id=3),
        annotation(3, 1, category_id=1),
        annotation(4, 1, None, category_id=8),
        annotation(5, 1, "broken", category_id=6),  # of another class
    ]
    file = write_instances(tmp_path / "a.json", [image(1)], annotations, CATEGORIES)
    selection = select_from(file, ["person", {"vehicle": ["car", "truck"]}])
    write_selection(tmp_path / "selection.json", selection.instances)
    kept = read_instances(tmp_path / "selection.json").instances
    assert [(c.id, c.name) for c in kept.categories] == [(1, "person"), (2, "vehicle")]
    assert [(a.category_id, a.source_category or None) for a in kept.annotations] == [
        (2, "truck"),
        (2, "car"),
        (1, None),
    ]
    write_rejections(
        tmp_path / "rejected.csv", selection.rejections, read_instances(file).instances
    )
    (row,) = (tmp_path / "rejected.csv").read_text().splitlines()[1:]
    assert row == "1,4,segmentation_missing,,1.jpg,truck,,1,4"
