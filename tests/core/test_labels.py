"""Mask files."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from cocoseg.core.labels import (
    IGNORE_INDEX,
    PALETTE,
    read_classes,
    read_mask,
    write_classes,
    write_mask,
)


def test_a_mask_file_keeps_every_label_and_shows_its_color(tmp_path: Path) -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_mask(tmp_path / "mask.png", labels)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), labels)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), labels)
        assert np.array_equal(np.asarray(image.convert("RGB")), PALETTE[labels])


def test_background_ignored_pixels_and_the_first_classes_have_distinct_colors() -> None:
    assert PALETTE[0].tolist() == [0, 0, 0]
    assert PALETTE[IGNORE_INDEX].tolist() == [224, 224, 224]
    assert len(np.unique(PALETTE[[*range(41), IGNORE_INDEX]], axis=0)) == 42


def test_the_list_of_classes_names_the_color_of_each_label(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    write_classes(path, ["cat", "cow / 牛"])
    assert json.loads(path.read_text(encoding="utf-8")) == [
        {"label": 0, "name": "background", "color": "#000000"},
        {"label": 1, "name": "cat", "color": "#e63946"},
        {"label": 2, "name": "cow / 牛", "color": "#ffb703"},
        {"label": 255, "name": "ignored", "color": "#e0e0e0"},
    ]
    assert read_classes(path) == ["cat", "cow / 牛"]


def test_a_mask_read_as_colors_has_the_colors_of_the_list_of_classes(tmp_path: Path) -> None:
    names = [f"class {label}" for label in range(1, 255)]
    write_classes(tmp_path / "classes.json", names)
    entries = json.loads((tmp_path / "classes.json").read_text(encoding="utf-8"))
    labels = np.array([[entry["label"] for entry in entries]], np.uint8)
    write_mask(tmp_path / "mask.png", labels)
    with Image.open(tmp_path / "mask.png") as image:
        colors = [bytes(color).hex() for color in np.asarray(image.convert("RGB"))[0]]
    assert colors == [entry["color"].removeprefix("#") for entry in entries]
    assert read_classes(tmp_path / "classes.json") == names
