"""Masks have the pixels of pycocotools, and overlaps follow the rules."""

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from cocoseg.coco.instances import Category, ImageRecord, Instances, read_instances
from cocoseg.coco.rasterize import decode_region, encode_region, rasterize, write_masks
from cocoseg.core.labels import PALETTE
from cocoseg.sources.synthetic.scenes import annotations_json
from tests.coco_files import painted, select_from
from tests.mirror import MIRROR_SPLITS, mirror_document, needs_mirror
from tests.reference_masks import CROWDS, OVERLAPS, Crowd, Overlap, render, render_whole

CLASSES = ("person", "bicycle", "car", "motorcycle", "airplane")
EVERYTHING = 10_000


@needs_mirror
@pytest.mark.parametrize("split", MIRROR_SPLITS)
def test_every_mask_of_the_mirror_has_the_pixels_of_pycocotools(split: str, tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(mirror_document(split)))
    selection = select_from(file, CLASSES, max_instances=EVERYTHING, max_images=EVERYTHING)
    with contextlib.redirect_stdout(None):
        coco = COCO(file)
    label_of = {coco.getCatIds(catNms=[name])[0]: n for n, name in enumerate(CLASSES, start=1)}
    of_image: dict[int, list[Any]] = {image.id: [] for image in selection.instances.images}
    for annotation in selection.instances.annotations:
        of_image[annotation.image_id].append(annotation)
    assert len(of_image) == {"train2017": 119, "val2017": 52}[split]
    for image in selection.instances.images:
        size = image.width, image.height
        regions = [
            (coco.annToMask(theirs), label_of[theirs["category_id"]], bool(theirs["iscrowd"]))
            for theirs in coco.dataset["annotations"]
            if theirs["image_id"] == image.id and theirs["category_id"] in label_of
        ]
        for overlap in OVERLAPS:
            for crowd in CROWDS:
                ours = rasterize(of_image[image.id], *size, overlap=overlap, crowd=crowd)
                expected = render_whole(regions, size[::-1], overlap, crowd)
                assert np.array_equal(ours, expected), (image.id, overlap, crowd)


@pytest.mark.parametrize("workers", [1, 2])
def test_mask_files_are_palette_pngs_of_the_labels_and_the_summary_counts_them(
    tmp_path: Path, workers: int
) -> None:
    file = tmp_path / "instances.json"
    file.write_text(annotations_json(40, 96, 64, seed=0))
    selection = select_from(file, CLASSES).instances
    summary = write_masks(selection, tmp_path, overlap="last", crowd="ignore", workers=workers)
    pixels = np.zeros(256, int)
    for image in selection.images:
        annotations = [a for a in selection.annotations if a.image_id == image.id]
        labels = rasterize(
            annotations, 96, 64, overlap="last", crowd="ignore", ignored=image.ignored
        )
        with Image.open(tmp_path / f"{image.stem}.png") as mask:
            assert (mask.format, mask.mode) == ("PNG", "P")
            assert mask.getpalette() == PALETTE.ravel().tolist()
            assert np.array_equal(np.asarray(mask), labels)
        pixels += np.bincount(labels.ravel(), minlength=256)
    assert len(list(tmp_path.glob("*.png"))) == len(selection.images) == summary["masks"]
    names = ["background", *CLASSES]
    fractions = {name: pixels[n] / pixels.sum() for n, name in enumerate(names)}
    assert summary["pixels"] == pixels.sum()
    assert summary["fraction"] == pytest.approx(
        fractions | {"ignored": pixels[255] / pixels.sum()}, abs=1e-6
    )


def left(columns: int) -> dict[str, Any]:
    """Run lengths that cover the left columns of a 6x4 image."""
    return {"size": [4, 6], "counts": [0, columns * 4, (6 - columns) * 4]}


def right(columns: int) -> dict[str, Any]:
    return {"size": [4, 6], "counts": [(6 - columns) * 4, columns * 4]}


def row(annotations: list[Any], overlap: Overlap = "last", crowd: Crowd = "ignore") -> list[int]:
    """One row of a 6x4 mask whose rows are all the same."""
    labels = rasterize(annotations, 6, 4, overlap=overlap, crowd=crowd)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, np.tile(labels[0], (4, 1)))
    return list(map(int, labels[0]))


def test_last_gives_an_overlap_to_the_annotation_painted_last() -> None:
    assert row([painted(left(4), 1), painted(right(3), 2)]) == [1, 1, 1, 2, 2, 2]
    assert row([painted(right(3), 2), painted(left(4), 1)]) == [1, 1, 1, 1, 2, 2]


def test_small_gives_an_overlap_to_the_smaller_area_in_either_order() -> None:
    big, small = painted(left(4), 1), painted(right(3), 2)
    assert row([big, small], "small") == row([small, big], "small") == [1, 1, 1, 2, 2, 2]


def test_small_gives_an_overlap_of_equal_areas_to_the_last() -> None:
    one, two = painted(left(4), 1), painted(right(4), 2)
    assert row([one, two], "small") == [1, 1, 2, 2, 2, 2]
    assert row([two, one], "small") == [1, 1, 1, 1, 2, 2]


def test_ignore_makes_overlaps_255_even_of_one_class_and_under_a_third() -> None:
    assert row([painted(left(4), 1), painted(right(4), 1)], "ignore") == [1, 1, 255, 255, 1, 1]
    three = [painted(left(4), 1), painted(right(4), 2), painted(left(6), 3)]
    assert row(three, "ignore") == [255] * 6
    polygons = [painted([[x, 0, x + 4, 0, x + 4, 4, x, 4]], 1) for x in (0, 2)]
    assert row(polygons, "ignore") == [1, 1, 255, 255, 1, 1]


def test_an_ignored_crowd_lies_beneath_all_instances_in_any_file_order() -> None:
    crowd, instance = painted(left(4), 1, iscrowd=1), painted(right(4), 2)
    for overlap in OVERLAPS:
        for annotations in ([crowd, instance], [instance, crowd]):
            assert row(annotations, overlap, "ignore") == [255, 255, 2, 2, 2, 2]


def test_ignored_boxes_lie_beneath_instances_and_crowds() -> None:
    annotations = [painted(left(2), 1), painted(right(2), 2, iscrowd=1)]
    for overlap in OVERLAPS:
        labels = rasterize(
            annotations, 6, 4, overlap=overlap, crowd="paint", ignored=[(1, 1, 5, 3), (0, 0, 1, 1)]
        )
        assert labels[0].tolist() == [1, 1, 0, 0, 2, 2]
        assert labels[1].tolist() == [1, 1, 255, 255, 2, 2]


def test_a_crowd_is_painted_like_an_instance_or_dropped() -> None:
    crowd, instance = painted(left(5), 1, iscrowd=1), painted(right(3), 2)
    assert row([instance, crowd], "last", "paint") == [1, 1, 1, 1, 1, 2]
    assert row([instance, crowd], "small", "paint") == [1, 1, 1, 2, 2, 2]
    assert row([instance, crowd], "ignore", "paint") == [1, 1, 1, 255, 255, 2]
    assert row([instance, crowd], "last", "drop") == [0, 0, 0, 2, 2, 2]


@st.composite
def run_lengths(draw: st.DrawFn, width: int, height: int) -> dict[str, Any]:
    """Any runs that fill the image; runs may be empty."""
    marks = sorted(draw(st.lists(st.integers(0, width * height), max_size=6)))
    counts = np.diff([0, *marks, width * height]).tolist()
    return {"size": [height, width], "counts": counts}


def pixels_of(segmentation: dict[str, Any]) -> NDArray[Any]:
    """Decode run lengths: uint8 (H, W)."""
    counts = segmentation["counts"]
    flat = np.repeat(np.arange(len(counts)) % 2, counts)
    return flat.reshape(segmentation["size"], order="F").astype(np.uint8)


@given(st.data(), st.sampled_from(OVERLAPS), st.sampled_from(CROWDS))
@settings(max_examples=150, deadline=None)
def test_every_pixel_follows_the_rules_for_overlaps_and_crowds(
    data: st.DataObject, overlap: Overlap, crowd: Crowd
) -> None:
    width, height = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    drawn = data.draw(
        st.lists(
            st.tuples(run_lengths(width, height), st.integers(1, 3), st.integers(0, 1)), max_size=5
        )
    )
    annotations = [painted(runs, label, iscrowd=crowded) for runs, label, crowded in drawn]
    regions = [(pixels_of(runs), label, bool(crowded)) for runs, label, crowded in drawn]
    ours = rasterize(annotations, width, height, overlap=overlap, crowd=crowd)
    assert np.array_equal(ours, render(regions, (height, width), overlap, crowd))
    assert np.array_equal(ours, render_whole(regions, (height, width), overlap, crowd))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_polygons_have_the_pixels_of_ann_to_mask(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    x = st.floats(0, width).map(lambda value: min(round(value, 2), width))
    y = st.floats(0, height).map(lambda value: min(round(value, 2), height))
    points = st.lists(st.tuples(x, y), min_size=3, max_size=8)
    polygons = [
        [coordinate for point in polygon for coordinate in point]
        for polygon in data.draw(st.lists(points, min_size=1, max_size=3))
    ]
    coco = COCO()
    coco.imgs = {1: {"width": width, "height": height}}
    expected = coco.annToMask({"image_id": 1, "segmentation": polygons})
    region = decode_region(encode_region(polygons, width, height))
    found = np.zeros((height, width), np.uint8)
    region.of(found)[region.pixels] = 1
    assert np.array_equal(found, expected)
    whole = encode_region(polygons, width, height, whole=True)
    assert np.array_equal(coco_mask.decode(whole), expected)


def test_an_image_wider_than_16_bits_is_painted_and_counted_exactly(tmp_path: Path) -> None:
    width, height = 70_000, 30
    right_half = {"size": [height, width], "counts": [35_000 * height, 35_000 * height]}
    selection = Instances(
        [ImageRecord(1, "wide.jpg", width, height)],
        [painted(right_half, 1)],
        [Category(1, "person")],
    )
    summary = write_masks(selection, tmp_path, overlap="ignore", crowd="ignore", workers=1)
    assert summary["fraction"] == {"background": 0.5, "person": 0.5, "ignored": 0}


def test_masks_of_a_selection_do_not_change_when_it_is_written_and_read(tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    file.write_text(annotations_json(40, 96, 64, seed=0))
    selection = select_from(file, CLASSES).instances
    again = tmp_path / "selection.json"
    again.write_bytes(msgspec.json.encode(selection))
    for name, source in {"a": selection, "b": read_instances(again).instances}.items():
        (tmp_path / name).mkdir()
        write_masks(source, tmp_path / name, overlap="small", crowd="paint", workers=1)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
