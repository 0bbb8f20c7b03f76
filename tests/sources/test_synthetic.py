"""The drawn sample: its annotations agree with its images, and it has every kind of problem."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from numpy.typing import NDArray

from cocoseg.sources.synthetic.objects import Part
from cocoseg.sources.synthetic.scenes import (
    Thing,
    annotate,
    annotations_json,
    compose_scene,
    draw_image,
    render,
)

WIDTH, HEIGHT = 256, 192
CLASSES = {1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane"}
Document = dict[str, Any]


def load(images: int, width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> Document:
    document: Document = json.loads(annotations_json(images, width, height, seed))
    return document


@pytest.fixture(scope="module")
def document() -> Document:
    return load(200)


def defects_of(annotation: Document, image: Document | None) -> set[str]:
    """Why a reader must reject an annotation; empty for a valid one."""
    if image is None:
        return {"no such image"}
    width, height = image["width"], image["height"]
    segmentation = annotation.get("segmentation")
    if segmentation is None or segmentation == []:
        return {"missing" if segmentation is None else "empty"}
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        if segmentation["size"] != [height, width]:
            return {"wrong size"}
        if isinstance(counts, str):
            return set() if all(48 <= ord(letter) < 112 for letter in counts) else {"undecodable"}
        found = {"negative count"} if min(counts) < 0 else set()
        return found | ({"wrong sum"} if sum(counts) != width * height else set())
    found = set()
    for polygon in segmentation:
        xs, ys = polygon[::2], polygon[1::2]
        found |= {"odd"} if len(polygon) % 2 else set()
        found |= {"few points"} if len(polygon) < 6 else set()
        found |= {"not finite"} if not all(map(math.isfinite, polygon)) else set()
        found |= {"negative"} if min(polygon) < 0 else set()
        found |= {"too wide"} if math.isfinite(max(xs)) and max(xs) > width else set()
        found |= {"too high"} if max(ys) > height else set()
    return found


def all_defects(document: Document) -> list[tuple[Document, set[str]]]:
    images = {image["id"]: image for image in document["images"]}
    return [(a, defects_of(a, images.get(a["image_id"]))) for a in document["annotations"]]


def valid_annotations(document: Document) -> list[Document]:
    return [annotation for annotation, found in all_defects(document) if not found]


def decode(segmentation: Any) -> NDArray[np.bool_]:
    if isinstance(segmentation, list):
        region = pycocotools.mask.merge(pycocotools.mask.frPyObjects(segmentation, HEIGHT, WIDTH))
    elif isinstance(segmentation["counts"], list):
        region = pycocotools.mask.frPyObjects(segmentation, HEIGHT, WIDTH)
    else:
        region = {**segmentation, "counts": segmentation["counts"].encode()}
    return np.asarray(pycocotools.mask.decode(region), dtype=bool)


def test_the_bytes_depend_on_the_seed_alone() -> None:
    assert annotations_json(20, 128, 96, 3) == annotations_json(20, 128, 96, 3)
    assert annotations_json(20, 128, 96, 3) != annotations_json(20, 128, 96, 4)
    first = draw_image(7, 128, 96, 3)
    assert first.tobytes() == draw_image(7, 128, 96, 3).tobytes()
    assert first.tobytes() != draw_image(7, 128, 96, 4).tobytes()
    assert (first.mode, first.size) == ("RGB", (128, 96))
    scene = compose_scene(7, 128, 96, 3)
    assert first.tobytes() == render(scene, 3).tobytes() != render(scene, 4).tobytes()


def test_the_bytes_of_the_sample_have_not_changed() -> None:
    """A difference is allowed only if the sample changes on purpose; then update dvc.lock too."""
    digest = hashlib.sha256(annotations_json(40, WIDTH, HEIGHT, 0).encode())
    for image_id in (5, 8, 31):  # people, a bicycle, cars
        digest.update(draw_image(image_id, WIDTH, HEIGHT, 0).tobytes())
    assert digest.hexdigest() == (
        "277d98c5787edbf84937349861d8f914826dc9baef67a471a8c822dc29fd3bde"
    )


def test_an_image_does_not_depend_on_the_number_of_images(document: Document) -> None:
    few = load(20)
    assert document["images"][:20] == few["images"]
    assert document["annotations"][: len(few["annotations"])] == few["annotations"]


@pytest.mark.parametrize(("width", "height"), [(64, 48), (97, 131), (1024, 768)])
def test_images_of_other_sizes_show_objects_of_similar_size(width: int, height: int) -> None:
    assert draw_image(3, width, height, 0).size == (width, height)
    good = valid_annotations(load(40, width, height))
    fractions = [a["area"] / (width * height) for a in good if a["category_id"] in CLASSES]
    assert len(fractions) > 60
    assert 0.02 < np.mean(fractions) < 0.2


def test_the_document_is_in_cocos_format(document: Document) -> None:
    assert set(document) == {"info", "licenses", "images", "annotations", "categories"}
    names = {category["id"]: category["name"] for category in document["categories"]}
    assert len(names) == 80
    assert max(names) == 90
    assert CLASSES.items() <= names.items()
    assert {10: "traffic light", 18: "dog", 62: "chair", 90: "toothbrush"}.items() <= names.items()
    assert document["categories"][0] == {"supercategory": "person", "id": 1, "name": "person"}
    image = document["images"][6]
    assert (image["id"], image["file_name"]) == (7, "sample_000000000007.jpg")
    assert {"width", "height", "license", "date_captured", "coco_url"} <= set(image)
    identifiers = [annotation["id"] for annotation in document["annotations"]]
    assert len(set(identifiers)) == len(identifiers)
    fields = {"segmentation", "area", "iscrowd", "image_id", "bbox", "category_id", "id"}
    assert all(set(annotation) == fields for annotation in valid_annotations(document))


def test_areas_and_boxes_agree_with_the_masks(document: Document) -> None:
    for annotation in valid_annotations(document):
        mask = decode(annotation["segmentation"])
        assert annotation["area"] == mask.sum() >= 16
        rows, columns = np.nonzero(mask)
        left, top, width, height = annotation["bbox"]
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        # The tips of a polygon may be thinner than a pixel, which the mask then lacks.
        assert np.allclose(edges, (left, top, left + width, top + height), atol=3)


def test_every_annotated_object_is_visible(document: Document) -> None:
    owners: dict[int, NDArray[np.int64]] = {}
    valid = valid_annotations(document)
    for annotation in valid:  # in each image back to front
        owner = owners.setdefault(annotation["image_id"], np.zeros((HEIGHT, WIDTH), np.int64))
        owner[decode(annotation["segmentation"])] = annotation["id"]
    visible = Counter[int]()
    for owner in owners.values():
        visible.update(dict(zip(*np.unique(owner, return_counts=True), strict=True)))
    assert min(visible[annotation["id"]] for annotation in valid) >= 20


@pytest.mark.parametrize("image_id", [3, 8, 10, 13, 16, 22])
def test_an_object_changes_the_image_only_inside_its_mask(image_id: int) -> None:
    scene = compose_scene(image_id, WIDTH, HEIGHT, seed=0)
    *others, nearest = scene.things
    unshadowed = replace(scene, things=[*others, replace(nearest, on_ground=False)])
    with_it = np.asarray(render(unshadowed, seed=0), dtype=np.int64)
    without_it = np.asarray(render(replace(scene, things=others), seed=0), dtype=np.int64)
    changed = np.abs(with_it - without_it).max(axis=2) > 20
    [annotation] = [a for a in annotate(scene) if a["id"] == image_id * 100 + len(others)]
    mask = decode(annotation["segmentation"])
    fraction = 0.35 if nearest.category == "bicycle" else 0.85  # its wheels are transparent
    assert (changed & mask).sum() > fraction * mask.sum()
    assert (changed & ~grown(mask)).sum() <= 0.005 * mask.sum()


def grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and all adjacent pixels."""
    padded = np.pad(mask, 1)
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    near = np.zeros_like(padded)
    for shift in shifts:
        near |= np.roll(padded, shift, (0, 1))
    return near[1:-1, 1:-1]


@pytest.mark.parametrize("corner", [(0, 0), (50, 20)], ids=["in the corner", "inside"])
def test_the_mask_of_a_crowd_is_its_silhouette_and_the_adjacent_pixels(
    corner: tuple[int, int],
) -> None:
    left, top = corner
    outline = [(left, top), (left + 60, top), (left + 60, top + 30), (left, top + 30)]
    crowd = Thing("person", [Part(outline, None)], base=60, crowd=True)
    [annotation] = annotate(replace(compose_scene(3, WIDTH, HEIGHT, 0), things=[crowd]))
    silhouette = np.zeros((HEIGHT, WIDTH), bool)
    silhouette[top : top + 31, left : left + 61] = True  # Pillow paints the edges
    assert np.array_equal(decode(annotation["segmentation"]), grown(silhouette))


def test_outlines_are_clipped_to_the_image() -> None:
    right, bottom = WIDTH + 40, HEIGHT + 40
    outline = [(-40, -40), (right, -40), (right, bottom), (-40, bottom)]
    scene = compose_scene(3, WIDTH, HEIGHT, 0)
    [annotation] = annotate(replace(scene, things=[Thing("car", [Part(outline, None)], base=60)]))
    assert annotation["bbox"] == [0, 0, WIDTH, HEIGHT]
    assert annotation["area"] == WIDTH * HEIGHT


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_forty_images_contain_every_kind_of_malformed_annotation(seed: int) -> None:
    malformed = [(a, found) for a, found in all_defects(load(40, seed=seed)) if found]
    assert all(a["category_id"] in CLASSES for a, _ in malformed)
    images = Counter(a["image_id"] for a, _ in malformed if a["image_id"] != 27)
    assert sorted(images.values()) == [1] * 13  # in image 27, all annotations are malformed
    assert set().union(*(found for _, found in malformed)) == {
        "missing",
        "empty",
        "few points",
        "odd",
        "not finite",
        "negative",
        "too wide",
        "too high",
        "wrong size",
        "wrong sum",
        "negative count",
        "undecodable",
        "no such image",
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_forty_images_contain_every_reason_to_drop_an_image(seed: int) -> None:
    document = load(40, seed=seed)
    good: Counter[int] = Counter()
    bad: Counter[int] = Counter()
    for annotation, found in all_defects(document):
        if annotation["category_id"] in CLASSES:
            (bad if found else good)[annotation["image_id"]] += 1
    images = [image["id"] for image in document["images"]]
    assert any(good[image] == bad[image] == 0 for image in images)  # no selected class
    assert any(good[image] == 0 < bad[image] for image in images)  # no valid annotation
    assert any(good[image] > 10 for image in images)  # too many instances
    assert sum(1 <= good[image] <= 10 for image in images) >= 32


def test_only_one_number_is_infinite_and_the_text_is_strict_json() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = annotations_json(40, WIDTH, HEIGHT, 0)
    assert text.count("1e999") == 1
    json.loads(text, parse_constant=refuse)


def test_crowds_are_run_lengths_compressed_and_uncompressed(document: Document) -> None:
    crowds = [a for a in valid_annotations(document) if a["iscrowd"]]
    forms = Counter(type(a["segmentation"]["counts"]).__name__ for a in crowds)
    assert forms == {"list": 8, "str": 2}
    assert {a["category_id"] for a in crowds} == {1, 3}
    assert all(a["area"] > 0.02 * WIDTH * HEIGHT for a in crowds)


def test_every_class_is_frequent() -> None:
    good = valid_annotations(load(400, seed=1))
    instances = Counter(CLASSES.get(a["category_id"], "other") for a in good)
    assert [name for name, _ in instances.most_common() if name != "other"][:2] == ["person", "car"]
    for number, name in CLASSES.items():
        images = {a["image_id"] for a in good if a["category_id"] == number}
        assert len(images) >= 0.22 * 400, name
    assert 2 <= sum(instances[name] for name in CLASSES.values()) / 400 <= 3.2
    others = {a["category_id"] for a in good} - set(CLASSES)
    assert len(others) >= 6
