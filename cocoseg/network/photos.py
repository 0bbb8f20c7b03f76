"""Photos and their label maps as tensors: from files to the network's batches of whole photos."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from cocoseg.common.errors import UserError
from cocoseg.common.images import read_rgb
from cocoseg.common.labels import read_label_png

MAX_ASPECT = 16
"""Of a longer photo the network would see millions of pixels of a line."""


@dataclass(frozen=True)
class Pair:
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
        label_map = read_label_png(self.mask)
        height, width = label_map.shape
        rgb = read_rgb(self.image, width, height, shorter_side=shorter_side)
        image, labels = torch.from_numpy(rgb).permute(2, 0, 1), torch.from_numpy(label_map)
        if image.shape[1:] != labels.shape:
            size = list(image.shape[1:])
            labels = transforms.resize(labels[None], size, InterpolationMode.NEAREST_EXACT)[0]
        return image, labels


def read_pairs(split: Path, images: Path, masks: Path) -> list[Pair]:
    """The files of every stem in a split's list. Raises UserError where a file is missing."""
    image_of = {path.stem: path for path in sorted(images.iterdir())}
    stems = split.read_text(encoding="utf-8").split("\n")
    pairs = []
    for stem in filter(None, stems):
        mask = masks / f"{stem}.png"
        if stem not in image_of or not mask.is_file():
            missing = f"{images}/{stem}.*" if stem not in image_of else str(mask)
            raise UserError(f"{missing} is missing but named in {split}: run `dvc repro` again")
        pairs.append(Pair(image_of[stem], mask))
    return pairs


class WholePhotos(Dataset[tuple[Tensor, Tensor]]):
    """Photos resized for the network, with the labels at the original size."""

    def __init__(self, pairs: Sequence[Pair], size: int) -> None:
        self.pairs = pairs
        self.size = size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, labels = self.pairs[index].read()
        return resize_shorter_side(image, self.size), labels


Batch = tuple[Tensor, Tensor]


def load_batches(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """A loader's batches; what fails in its worker processes is raised as UserError of one line."""
    try:
        yield from loader
    except UserError as error:
        # torch puts the worker's traceback before the message.
        raise UserError(str(error).strip().rsplit("UserError: ", 1)[-1]) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a process that loads images died, perhaps for want of memory: lower runtime.workers"
        ) from None


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


def batches_of_equal_size(pairs: Sequence[Pair], batch_size: int) -> list[list[int]]:
    """Indices of photos grouped into batches in which all have the same size."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, pair in enumerate(pairs):
        by_size.setdefault(pair.size(), []).append(index)
    return [
        indices[start : start + batch_size]
        for indices in by_size.values()
        for start in range(0, len(indices), batch_size)
    ]
