"""Mask files."""

from pathlib import Path

import numpy as np
from PIL import Image

from cocoseg.core.labels import IGNORE_INDEX, PALETTE, read_mask, write_mask


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
