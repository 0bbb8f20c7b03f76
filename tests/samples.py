"""Small samples (images with masks), drawn for tests."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cocoseg.core.labels import IGNORE_INDEX, write_mask
from cocoseg.inference.dataset import Sample

COLORS = np.array([[20, 20, 20], [220, 40, 40], [40, 40, 220]], np.uint8)
"""The color of each label."""


def make_sample(
    directory: Path, stem: str = "image", width: int = 64, height: int = 48, kind: str = "png"
) -> Sample:
    """Draw vertical bands of the labels 0, 1 and 2 in their COLORS, below a band of label 0."""
    labels = np.repeat(np.arange(3, dtype=np.uint8), (width + 2) // 3)[:width]
    labels = np.broadcast_to(labels, (height, width)).copy()
    labels[: height // 4] = 0
    for name in ("images", "masks"):
        (directory / name).mkdir(exist_ok=True)
    sample = Sample(directory / f"images/{stem}.{kind}", directory / f"masks/{stem}.png")
    Image.fromarray(COLORS[labels]).save(sample.image, quality=95)
    write_mask(sample.mask, labels)
    return sample


def draw_samples(directory: Path) -> list[Sample]:
    """Draw eight noisy images, each with a red and a blue rectangle of random size and place."""
    random = np.random.default_rng(0)
    samples = []
    for number in range(8):
        labels = np.zeros((96, 96), np.uint8)
        for label in (1, 2):
            top, left = random.integers(0, 56, 2)
            height, width = random.integers(30, 60, 2)
            labels[top : top + height, left : left + width] = label
        sample = Sample(directory / f"{number}.jpg", directory / f"{number}.png")
        noise = random.integers(-20, 20, (96, 96, 3))
        Image.fromarray((COLORS[labels] + noise).clip(0, 255).astype(np.uint8)).save(sample.image)
        write_mask(sample.mask, labels)
        samples.append(sample)
    return samples


def random_masks(seed: int, classes: int = 4) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a ground truth (50, 60) with ignored pixels, and a partly correct prediction."""
    random = np.random.default_rng(seed)
    ground_truth = random.integers(0, classes, (5, 6)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
    noise = random.integers(0, classes, ground_truth.shape).astype(np.uint8)
    shifted = np.roll(ground_truth, 2, 1)
    prediction = np.where(random.random(ground_truth.shape) < 0.6, shifted, noise)
    ground_truth[:5] = IGNORE_INDEX
    return ground_truth, prediction
