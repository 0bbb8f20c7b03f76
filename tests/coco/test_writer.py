"""Masks written as a COCO instances file."""

import contextlib
import json
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from cocoseg.coco.instances import read_instances
from cocoseg.coco.rasterize import rasterize
from cocoseg.coco.writer import CocoWriter


def test_written_masks_are_read_back_without_ignored_pixels(tmp_path: Path) -> None:
    first = np.zeros((4, 6), np.uint8)
    first[1:3, 2:5], first[0, 0], first[3, 5] = 1, 2, 255
    second = np.full((3, 2), 2, np.uint8)
    writer = CocoWriter(["background", "cat", "dog"])
    writer.add("pets/1.jpg", first)
    writer.add("2.jpg", second)
    writer.add("empty.jpg", np.zeros((2, 3), np.uint8))
    path = tmp_path / "out.json"
    writer.write(path)

    read = read_instances(path).instances
    assert [(i.file_name, i.width, i.height) for i in read.images] == [
        ("pets/1.jpg", 6, 4),
        ("2.jpg", 2, 3),
        ("empty.jpg", 3, 2),
    ]
    assert [(c.id, c.name) for c in read.categories] == [(1, "cat"), (2, "dog")]
    first[3, 5] = 0
    for image, labels in zip(read.images, [first, second, np.zeros((2, 3))], strict=True):
        annotations = [a for a in read.annotations if a.image_id == image.id]
        assert [a.category_id for a in annotations] == [n for n in (1, 2) if n in labels]
        found = rasterize(annotations, image.width, image.height, overlap="ignore", crowd="ignore")
        assert np.array_equal(found, labels)


def test_annotations_have_the_area_and_box_of_pycocotools(tmp_path: Path) -> None:
    labels = np.zeros((4, 6), np.uint8)
    labels[1:3, 2:5] = labels[3, 3] = 1
    writer = CocoWriter(["background", "cat"])
    writer.add("1.jpg", labels)
    writer.write(tmp_path / "out.json")
    (entry,) = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert (entry["id"], entry["area"], entry["bbox"], entry["iscrowd"]) == (1, 7, [2, 1, 3, 3], 0)
    with contextlib.redirect_stdout(None):
        coco = COCO(tmp_path / "out.json")
    assert np.array_equal(coco.annToMask(coco.anns[1]), labels)


def test_polygons_are_one_annotation_per_connected_component(tmp_path: Path) -> None:
    labels = np.zeros((6, 8), np.uint8)
    labels[0:5, 0:5], labels[2, 2], labels[5, 7] = 1, 0, 1  # a square with a hole, a single pixel
    labels[0:2, 6:8] = 2
    writer = CocoWriter(["background", "cat", "dog"], "polygons")
    writer.add("1.jpg", labels)
    writer.write(tmp_path / "out.json")
    entries = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert [(e["category_id"], e["area"], e["bbox"]) for e in entries] == [
        (1, 24, [0, 0, 5, 5]),
        (1, 1, [7, 5, 1, 1]),
        (2, 4, [6, 0, 2, 2]),
    ]
    assert all(isinstance(e["segmentation"][0], list) for e in entries)
    read = read_instances(tmp_path / "out.json").instances
    found = rasterize(read.annotations, 8, 6, overlap="ignore", crowd="ignore")
    assert np.array_equal(found, labels)
