"""Photos and their label maps as tensors: from files to the network's batches of whole photos."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from cocoseg.core.errors import UserError
from cocoseg.core.images import read_rgb
from cocoseg.core.labels import read_mask

MAX_ASPECT = 16
"""Of a longer photo the network would see millions of pixels of a line."""


@dataclass(frozen=True)
class Sample:
    """The files of one photo and its label map."""

    image: Path
    mask: Path

    def files(self) -> tuple[Path, Path]:
        return self.image, self.mask

    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, from the label map's header."""
        with Image.open(self.mask) as mask:
            return mask.height, mask.width

    def read(self, shorter_side: int | None = None) -> tuple[Tensor, Tensor]:
        """The photo as uint8 (3, H, W) and its labels as uint8 (H, W).

        Where a `shorter_side` of so many pixels is enough, a JPEG that has at least twice as many
        is decoded smaller, in less time, and its labels are those of the nearest pixels.
        """
        label_map = read_mask(self.mask)
        height, width = label_map.shape
        rgb = read_rgb(self.image, width, height, shorter_side=shorter_side)
        image, labels = torch.from_numpy(rgb).permute(2, 0, 1), torch.from_numpy(label_map)
        if image.shape[1:] != labels.shape:
            size = list(image.shape[1:])
            labels = transforms.resize(labels[None], size, InterpolationMode.NEAREST_EXACT)[0]
        return image, labels


def read_samples(split: Path, images: Path, masks: Path) -> list[Sample]:
    """The files of every stem in a split's list. Raises UserError where a file is missing."""
    image_of = {path.stem: path for path in sorted(images.iterdir())}
    stems = split.read_text(encoding="utf-8").split("\n")
    samples = []
    for stem in filter(None, stems):
        mask = masks / f"{stem}.png"
        if stem not in image_of or not mask.is_file():
            missing = f"{images}/{stem}.*" if stem not in image_of else str(mask)
            raise UserError(f"{missing} is missing but named in {split}: run `dvc repro` again")
        samples.append(Sample(image_of[stem], mask))
    return samples


class WholeImages(Dataset[tuple[Tensor, Tensor]]):
    """Photos resized for the network, with the labels at the original size."""

    def __init__(self, samples: Sequence[Sample], size: int) -> None:
        self.samples = samples
        self.size = size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, labels = self.samples[index].read()
        return resize_shorter_side(image, self.size), labels


def resize_shorter_side(image: Tensor, size: int) -> Tensor:
    """Resize uint8 (3, H, W) so that its shorter side has `size` pixels.

    One of a longer side than MAX_ASPECT times the shorter one is squeezed to that before.
    """
    height, width = image.shape[1:]
    longest = MAX_ASPECT * min(height, width)
    if max(height, width) > longest:
        squeezed = [min(height, longest), min(width, longest)]
        image = transforms.resize(image, squeezed, antialias=True)
    resized: Tensor = transforms.resize(image, [size], antialias=True)
    return resized
