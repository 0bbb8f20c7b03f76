"""Exports of labelling tools, by changed parameters alone, through the data stages."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cocoseg.annotations.splits import SPLITS
from cocoseg.common.images import read_rgb
from cocoseg.common.labels import read_label_png
from stages import download, filter, images, mask, split
from tests import ROOT
from tests.exports import EXPORTS, Export, expected_labels, reasons, shown_labels

OWN = {
    "download.source": "files",
    "filter.classes": "all",
    "split.ratios": {"train": 1, "val": 0, "test": 0},
    "runtime.workers": 0,
}


def run_data_stages(
    project: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run what comes before training in the folder `project`, with changed parameters."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for key, value in {**OWN, **changes}.items():
        *sections, name = key.split(".")
        section = params
        for part in sections:
            section = section[part]
        section[name] = value
    text = yaml.safe_dump(params, allow_unicode=True)
    (project / "params.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(project)
    for stage in (download, filter, images, mask, split):
        stage.main()


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rejected(project: Path) -> list[dict[str, str]]:
    with (project / "data/rejected.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("write", EXPORTS, ids=lambda write: write.__name__)
def test_an_export_becomes_photos_with_masks_on_what_they_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Export]
) -> None:
    export = write(tmp_path / "data/own")
    run_data_stages(tmp_path, export.params, monkeypatch)
    assert tuple(read_json(Path("data/classes.json"))) == export.classes
    selection = read_json(Path("data/selection.json"))
    assert {image["file_name"] for image in selection["images"]} == set(export.objects)
    assert {path.name for path in Path("data/images").iterdir()} == set(export.objects)
    for image in selection["images"]:
        name = image["file_name"]
        labels = read_label_png(Path("data/masks", name).with_suffix(".png"))
        assert labels.shape == (image["height"], image["width"])
        assert np.array_equal(
            labels, expected_labels(export.objects[name], export.classes, labels.shape)
        ), name
        photo = read_rgb(Path("data/images", name), image["width"], image["height"])
        assert np.array_equal(labels, shown_labels(photo, export.classes)), name
    rows = rejected(tmp_path)
    assert reasons(rows, "image") == export.images_dropped
    assert reasons(rows, "annotation") == export.annotations_dropped
    stems = {name: Path(f"data/splits/{name}.txt").read_text().splitlines() for name in SPLITS}
    if export.splits:
        assert stems == export.splits
    else:
        assert sorted(stems["train"]) == sorted(Path(name).stem for name in export.objects)
