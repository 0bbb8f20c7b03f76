"""Adding a sixth class by changing parameters only, on real COCO images."""

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from tests.mirror import MIRROR, mirror_document, needs_mirror
from tests.reference_masks import render_whole

from .conftest import Project, make_project, stages_run

pytestmark = [
    pytest.mark.xdist_group("class"),
    needs_mirror,
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),  # from pycocotools
]

FIVE = ["person", "bicycle", "car", "motorcycle", "airplane"]
SIX = [*FIVE, "dog"]
DOG = 6
MAX_INSTANCES = 10


class Expected:
    """The contents of the COCO file for some classes, computed without this project's code."""

    def __init__(self, classes: list[str]) -> None:
        document = mirror_document("train2017")
        name_of = {category["id"]: category["name"] for category in document["categories"]}
        found: dict[int, list[tuple[dict[str, Any], str]]] = defaultdict(list)
        for annotation in document["annotations"]:
            name = name_of[annotation["category_id"]]
            if name in classes:
                found[annotation["image_id"]].append((annotation, name))
        self.images = {image["id"]: image for image in document["images"]}
        self.kept = {id: found[id] for id in found if len(found[id]) <= MAX_INSTANCES}
        self.stem = {id: Path(image["file_name"]).stem for id, image in self.images.items()}
        self.too_many = {id for id in found if len(found[id]) > MAX_INSTANCES}

    def stems(self, *names: str) -> set[str]:
        """The stems of the kept images that show one of the named classes."""
        return {
            self.stem[id] for id, items in self.kept.items() if any(n in names for _, n in items)
        }

    def instances(self) -> Counter[str]:
        return Counter(name for items in self.kept.values() for _, name in items)

    def region(self, annotation: dict[str, Any]) -> NDArray[np.bool_]:
        """The pixels of an annotation according to pycocotools."""
        image = self.images[annotation["image_id"]]
        encoded = coco_mask.frPyObjects(annotation["segmentation"], image["height"], image["width"])
        encoded = coco_mask.merge(encoded) if isinstance(encoded, list) else encoded
        return coco_mask.decode(encoded).astype(bool)

    def labels(self, id: int, classes: list[str]) -> NDArray[np.uint8]:
        """The mask of an image: crowds are ignored, later instances cover earlier ones."""
        image = self.images[id]
        regions = [
            (self.region(annotation), classes.index(name) + 1, bool(annotation["iscrowd"]))
            for annotation, name in self.kept[id]
        ]
        return render_whole(regions, (image["height"], image["width"]), "last", "ignore")


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The data stages of the five published classes."""
    project = make_project(tmp_path_factory.mktemp("mirror"))
    project.set_params(
        {
            "download.source": "coco",
            "download.coco.base_url": MIRROR.as_uri(),
            "download.coco.split": "train2017",
            "download.coco.md5": None,
            "filter.max_images": 8000,
            "train.epochs": 1,
        }
    )
    project.succeed("dvc", "repro", "mask", "split", "initial_weights")
    return project


@pytest.fixture(scope="module")
def six(five: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, list[str]]:
    """The same project with dogs, trained and scored, and the stages that ran."""
    project = five.copy(tmp_path_factory.mktemp("six") / "project")
    project.set_params({"filter.classes": SIX})
    return project, stages_run(project.succeed("dvc", "repro", "evaluate"))


def stems_in(project: Project, directory: str) -> set[str]:
    return {path.stem for path in (project.directory / directory).iterdir()}


def read(project: Project, name: str) -> Any:
    return json.loads((project.directory / name).read_text(encoding="utf-8"))


def test_only_new_images_are_fetched(five: Project, six: tuple[Project, list[str]]) -> None:
    project, stages = six
    assert stages == [
        *("filter", "images", "mask", "near_duplicates", "split", "train", "evaluate"),
    ]
    new = Expected(SIX).stems(*SIX) - Expected(FIVE).stems(*FIVE)
    assert new
    assert read(project, "metrics/machine/images.json")["images_fetched"] == len(new)
    assert stems_in(project, "data/images") - stems_in(five, "data/images") == new


def test_the_images_are_those_of_the_coco_file(six: tuple[Project, list[str]]) -> None:
    project, _ = six
    expected = Expected(SIX)
    stems = expected.stems(*SIX)
    assert expected.stems("dog") <= stems
    assert stems_in(project, "data/images") == stems_in(project, "data/masks") == stems
    lists = [project.directory / f"data/splits/{name}.txt" for name in ("train", "val", "test")]
    assert sorted(stem for path in lists for stem in path.read_text().split()) == sorted(stems)


def test_the_counts_are_those_of_the_coco_file(six: tuple[Project, list[str]]) -> None:
    project, _ = six
    expected = Expected(SIX)
    counts = read(project, "metrics/filter.json")
    assert counts["images_total"] == len(expected.images)
    assert counts["images_kept"] == len(expected.kept)
    assert counts["images_dropped"]["too_many_instances"] == len(expected.too_many)
    assert counts["annotations_kept"] == expected.instances().total()
    assert list(counts["classes"]) == SIX
    for name, found in counts["classes"].items():
        assert found["instances"] == expected.instances()[name], name
        assert found["images"] == len(expected.stems(name)), name
    with (project.directory / "data/rejected.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["reason"] == "too_many_instances"]
    assert {int(row["image_id"]) for row in rows} == expected.too_many


def test_masks_equal_those_painted_with_pycocotools(six: tuple[Project, list[str]]) -> None:
    project, _ = six
    expected = Expected(SIX)
    for id, stem in expected.stem.items():
        if id in expected.kept:
            with Image.open(project.directory / f"data/masks/{stem}.png") as mask:
                labels = np.asarray(mask)
            assert np.array_equal(labels, expected.labels(id, SIX)), stem
            assert (DOG in labels) == (stem in expected.stems("dog")), stem


def test_pixels_change_only_to_the_new_class(five: Project, six: tuple[Project, list[str]]) -> None:
    project, _ = six
    new: set[int] = set()
    for stem in stems_in(five, "data/masks") & stems_in(project, "data/masks"):
        with (
            Image.open(five.directory / f"data/masks/{stem}.png") as before,
            Image.open(project.directory / f"data/masks/{stem}.png") as after,
        ):
            changed = np.asarray(before) != np.asarray(after)
            new |= set(np.asarray(after)[changed].tolist())
    assert new == {DOG}


def test_metrics_include_the_new_class(six: tuple[Project, list[str]]) -> None:
    project, _ = six
    assert list(read(project, "metrics/mask.json")["fraction"]) == ["background", "ignored", *SIX]
    summary = read(project, "metrics/split.json")
    splits = [summary[name] for name in ("train", "val", "test")]
    assert sum(split["classes"]["dog"] for split in splits) == len(Expected(SIX).stems("dog"))
    assert list(read(project, "metrics/test.json")["iou"]) == ["background", *SIX]
