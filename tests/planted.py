"""Altered copies of images, which a search for near-duplicates must find."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cocoseg.core.seeding import generator

Alter = Callable[[Image.Image, np.random.Generator], Image.Image]


def crop(image: Image.Image, draw: np.random.Generator, largest: float) -> Image.Image:
    """Cut a random fraction, up to `largest`, off each side."""
    width, height = image.size
    left, top, right, bottom = draw.uniform(0, largest, 4) * (width, height, width, height)
    return image.crop((round(left), round(top), round(width - right), round(height - bottom)))


def rescale(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    factor = draw.uniform(0.25, 0.8)
    return image.resize((round(image.width * factor), round(image.height * factor)))


def recompress(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(draw.integers(20, 60)))
    return Image.open(file)


def mirror(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


KINDS: dict[str, Alter] = {
    "copied": lambda image, draw: image,
    "rescaled to 25-80%": rescale,
    "recompressed at 20-60": recompress,
    "cropped by up to 5% per side": lambda image, draw: crop(image, draw, 0.05),
    "cropped by up to 10% per side": lambda image, draw: crop(image, draw, 0.1),
    "cropped by 10% on all sides": lambda image, draw: image.crop(
        tuple(round(fraction * side) for fraction in (0.1, 0.9) for side in image.size)
    ),
    "mirrored": lambda image, draw: mirror(image),
    "all of these": lambda image, draw: recompress(
        rescale(crop(mirror(image), draw, 0.1), draw), draw
    ),
}


def plant(original: Path, kind: str, directory: Path) -> Path:
    """Write a copy of an image, altered in one of KINDS; the random draw depends on both."""
    copy = directory / f"{kind} {original.stem}.jpg"
    with Image.open(original) as image:
        altered = KINDS[kind](image.convert("RGB"), generator(0, "plant", kind, original.stem))
    altered.save(copy, quality=90)
    return copy
