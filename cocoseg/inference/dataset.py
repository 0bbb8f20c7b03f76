"""Samples: images and their masks, from files to tensors."""

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
"""The largest ratio of an image's sides. Longer images are squeezed: resized by their shorter side,
they would have millions of pixels."""


@dataclass(frozen=True)
class Sample:
    """The files of an image and its mask."""

    image: Path
    mask: Path

    def files(self) -> tuple[Path, Path]:
        return self.image, self.mask

    def size(self) -> tuple[int, int]:
        """The (height, width) in pixels, from the header of the mask."""
        with Image.open(self.mask) as mask:
            return mask.height, mask.width

    def read(self, shorter_side: int | None = None) -> tuple[Tensor, Tensor]:
        """Decode the image and the mask.

        Args:
            shorter_side: the shorter side in pixels that is sufficient. A JPEG of at least twice
                that size is decoded at a fraction of its resolution, which takes less time, and its
                mask is resized to match by the nearest pixel.

        Returns:
            The image, RGB uint8 (3, H, W), and its labels, uint8 (H, W).

        Raises:
            UserError: the files do not belong together or are damaged.
        """
        mask = read_mask(self.mask)
        height, width = mask.shape
        rgb = read_rgb(self.image, width, height, shorter_side=shorter_side)
        image, labels = torch.from_numpy(rgb).permute(2, 0, 1), torch.from_numpy(mask)
        if image.shape[1:] != labels.shape:
            size = list(image.shape[1:])
            labels = transforms.resize(labels[None], size, InterpolationMode.NEAREST_EXACT)[0]
        return image, labels


def read_samples(split: Path, images: Path, masks: Path) -> list[Sample]:
    """Find the files of a split.

    Args:
        split: a text file of image stems, one per line.
        images: the directory of the images.
        masks: the directory of the masks.

    Raises:
        UserError: an image or a mask is missing.
    """
    image_of = {path.stem: path for path in sorted(images.iterdir())}
    stems = split.read_text(encoding="utf-8").split("\n")
    samples = []
    for stem in filter(None, stems):
        mask = masks / f"{stem}.png"
        if stem not in image_of or not mask.is_file():
            missing = f"{images}/{stem}.*" if stem not in image_of else str(mask)
            raise UserError(f"{missing} is missing but listed in {split}: rerun `dvc repro`")
        samples.append(Sample(image_of[stem], mask))
    return samples


class WholeImages(Dataset[tuple[Tensor, Tensor]]):
    """Images resized for a network of input `size`, with labels at the original size."""

    def __init__(self, samples: Sequence[Sample], size: int) -> None:
        self.samples = samples
        self.size = size

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, labels = self.samples[index].read()
        return resize_shorter_side(image, self.size), labels


def resize_shorter_side(image: Tensor, size: int) -> Tensor:
    """Resize an image so that its shorter side has `size` pixels (bilinear, antialiased).

    Args:
        image: uint8 (3, H, W). An aspect ratio above MAX_ASPECT is reduced to it first.
        size: the shorter side in pixels.
    """
    height, width = image.shape[1:]
    longest = MAX_ASPECT * min(height, width)
    if max(height, width) > longest:
        squeezed = [min(height, longest), min(width, longest)]
        image = transforms.resize(image, squeezed, antialias=True)
    resized: Tensor = transforms.resize(image, [size], antialias=True)
    return resized
