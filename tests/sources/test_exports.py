"""Exports of labeling tools in the data stages, with no change but to the parameters."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CocoDetection

from cocoseg.core.images import read_rgb
from cocoseg.core.labels import read_classes, read_mask
from cocoseg.curation.splits import SPLITS
from tests.exports import (
    EXPORTS,
    Export,
    by_hand,
    cvat,
    expected_labels,
    reasons,
    run_data_stages,
    shown_labels,
)
from tests.mirror import MIRROR, MIRROR_SPLITS, mirror_document, needs_mirror


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rejected(project: Path) -> list[dict[str, str]]:
    with (project / "data/rejected.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("write", EXPORTS, ids=lambda write: write.__name__)
def test_the_masks_of_an_export_cover_the_objects_in_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Export]
) -> None:
    export = write(tmp_path / "data/own")
    run_data_stages(tmp_path, export.params, monkeypatch)
    assert tuple(read_classes(Path("data/classes.json"))) == export.classes
    selection = read_json(Path("data/selection.json"))
    assert {image["file_name"] for image in selection["images"]} == set(export.objects)
    assert {path.name for path in Path("data/images").iterdir()} == set(export.objects)
    for image in selection["images"]:
        name = image["file_name"]
        labels = read_mask(Path("data/masks", name).with_suffix(".png"))
        assert labels.shape == (image["height"], image["width"])
        assert np.array_equal(
            labels, expected_labels(export.objects[name], export.classes, labels.shape)
        ), name
        pixels = read_rgb(Path("data/images", name), image["width"], image["height"])
        assert np.array_equal(labels, shown_labels(pixels, export.classes)), name
    rows = rejected(tmp_path)
    assert reasons(rows, "image") == export.images_dropped
    assert reasons(rows, "annotation") == export.annotations_dropped
    stems = {name: Path(f"data/splits/{name}.txt").read_text().splitlines() for name in SPLITS}
    if export.splits:
        assert stems == export.splits
    else:
        assert sorted(stems["train"]) == sorted(Path(name).stem for name in export.objects)


@pytest.mark.parametrize("write", [cvat, by_hand], ids=lambda write: write.__name__)
def test_pycocotools_and_torchvision_load_the_selection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Export]
) -> None:
    export = write(tmp_path / "data/own")
    run_data_stages(tmp_path, export.params, monkeypatch)
    dataset = CocoDetection("data/images", "data/selection.json")
    assert len(dataset) == len(export.objects)
    for loaded, annotations in dataset:
        [image] = dataset.coco.loadImgs(annotations[0]["image_id"])
        if image["file_name"] != "shown.jpg":  # torchvision ignores EXIF
            assert loaded.size == (image["width"], image["height"])
        labels = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in annotations:
            labels[dataset.coco.annToMask(annotation) > 0] = annotation["category_id"]
        stem = Path(image["file_name"]).stem
        assert np.array_equal(labels, read_mask(Path(f"data/masks/{stem}.png")))


@needs_mirror
def test_coco_in_a_plain_directory_gives_the_same_images_and_masks_as_in_the_layout_of_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in MIRROR_SPLITS:
        annotations = tmp_path / f"{split}.json"
        annotations.write_text(json.dumps(mirror_document(split)), encoding="utf-8")
        sources = {
            "coco": {"base_url": MIRROR.as_uri(), "split": split, "md5": None},
            "files": {"pairs": [{"annotations": str(annotations), "images": str(MIRROR / split)}]},
        }
        made = {}
        for source, values in sources.items():
            project = tmp_path / split / source
            project.mkdir(parents=True)
            changes = {f"download.{source}.{key}": value for key, value in values.items()}
            changes |= {"download.source": source, "filter.classes": ["person", "dog", "car"]}
            run_data_stages(project, changes | {"filter.max_images": 8000}, monkeypatch)
            made[source] = {
                path.relative_to(project): path.read_bytes()
                for path in (project / "data").rglob("*")
                if path.is_file() and path.suffix != ".json" and "downloads" not in path.parts
            }
        tables = [
            [
                {**row, "annotation_file": ""}
                for row in csv.DictReader(content.decode().splitlines())
            ]
            for content in (files.pop(Path("data/rejected.csv")) for files in made.values())
        ]
        assert tables[0] == tables[1]
        assert made["files"] == made["coco"]
        assert len(made["files"]) > 60
