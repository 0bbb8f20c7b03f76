"""Altered copies of photos, as a search for near-duplicates has to find them."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cocoseg.core.seeding import generator

Alter = Callable[[Image.Image, np.random.Generator], Image.Image]


def crop(photo: Image.Image, draw: np.random.Generator, largest: float) -> Image.Image:
    """Cut a share of up to `largest` off each side, drawn for each."""
    width, height = photo.size
    left, top, right, bottom = draw.uniform(0, largest, 4) * (width, height, width, height)
    return photo.crop((round(left), round(top), round(width - right), round(height - bottom)))


def rescale(photo: Image.Image, draw: np.random.Generator) -> Image.Image:
    factor = draw.uniform(0.25, 0.8)
    return photo.resize((round(photo.width * factor), round(photo.height * factor)))


def recompress(photo: Image.Image, draw: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=int(draw.integers(20, 60)))
    return Image.open(file)


def mirror(photo: Image.Image) -> Image.Image:
    return photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


KINDS: dict[str, Alter] = {
    "copied": lambda photo, draw: photo,
    "rescaled to 25-80%": rescale,
    "recompressed at 20-60": recompress,
    "cropped by up to 5% a side": lambda photo, draw: crop(photo, draw, 0.05),
    "cropped by up to 10% a side": lambda photo, draw: crop(photo, draw, 0.1),
    "cropped by 10% on all sides": lambda photo, draw: photo.crop(
        tuple(round(fraction * side) for fraction in (0.1, 0.9) for side in photo.size)
    ),
    "mirrored": lambda photo, draw: mirror(photo),
    "all of it": lambda photo, draw: recompress(
        rescale(crop(mirror(photo), draw, 0.1), draw), draw
    ),
}


def plant(original: Path, kind: str, directory: Path) -> Path:
    """Write a copy of a photo, altered as that one of KINDS says; what is drawn depends on both."""
    copy = directory / f"{kind} {original.stem}.jpg"
    with Image.open(original) as photo:
        altered = KINDS[kind](photo.convert("RGB"), generator(0, "plant", kind, original.stem))
    altered.save(copy, quality=90)
    return copy
