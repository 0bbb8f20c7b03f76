"""Training data: augmented crops of images, in an order that depends on seed and epoch."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from cocoseg.core.errors import UserError
from cocoseg.core.labels import IGNORE_INDEX
from cocoseg.core.parallel import in_processes
from cocoseg.core.progress import show_progress
from cocoseg.core.seeding import generator
from cocoseg.inference.dataset import Sample

logger = logging.getLogger(__name__)


def check_training_data(
    splits: Mapping[str, Sequence[Sample]], classes: Sequence[str], workers: int
) -> None:
    """Check the data before training, and log warnings for classes that cannot be learned.

    Args:
        splits: the samples by the name of their split; `train` is required.
        classes: the class names in label order, without the background.
        workers: the number of processes that read masks.

    Raises:
        UserError: a split has no images, or no training image has a pixel of any class.
    """
    for name, samples in splits.items():
        if not samples:
            raise UserError(
                f"split.ratios.{name}: the split has no images; training requires at least one"
            )
    pixels = count_pixels(splits["train"], workers)
    labels = slice(1, len(classes) + 1)
    if not pixels[labels].any():
        crowds = (
            "; set mask.crowd: paint if masks are marked iscrowd" if pixels[IGNORE_INDEX] else ""
        )
        raise UserError(
            "train: no training image has a pixel of any class, only background and ignored pixels"
            f"{crowds}"
        )
    absent = [name for name, count in zip(classes, pixels[labels], strict=True) if not count]
    if absent:
        logger.warning(
            "no training image shows %s. Without examples, the network cannot learn a class; if a "
            "test image shows it, its IoU is about 0 and lowers the mean IoU",
            ", ".join(absent),
        )
    if "val" in splits and not count_pixels(splits["val"], workers)[labels].any():
        logger.warning(
            "the validation masks show no class: mean IoU is undefined, and the last epoch is kept"
        )


def count_pixels(samples: Sequence[Sample], workers: int) -> NDArray[np.int64]:
    """Count the pixels of each label in all masks: int64 (256,)."""
    counts = np.zeros(256, np.int64)
    histograms = in_processes(_histogram, [sample.mask for sample in samples], workers)
    for histogram in show_progress(histograms, "counting pixels", len(samples)):
        counts += histogram
    return counts


def _histogram(mask: Path) -> list[int]:
    with Image.open(mask) as image:
        return image.histogram()


@dataclass(frozen=True)
class Augmentation:
    """Draws random crops of samples.

    Attributes:
        size: the shorter side in pixels to which an image is resized at scale 1.
        crop: the side of the square crops in pixels.
        scale: the lowest and the highest scale; scales are log-uniform between them.
        color: the largest relative change of brightness, contrast and saturation.
    """

    size: int
    crop: int
    scale: Sequence[float]
    color: float

    def __call__(self, sample: Sample, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw one crop.

        Returns:
            The image, uint8 (3, crop, crop), and its labels, uint8 (crop, crop). Outside of the
            sample the image is gray and the pixels are ignored.
        """
        shorter_side = np.exp(random.uniform(*np.log(self.scale))) * self.size
        image, labels = sample.read(shorter_side=math.ceil(shorter_side))
        height, width = labels.shape
        scale = shorter_side / min(height, width)
        top, crop_height, pad_top, out_height = self._place(height, scale, random.random())
        left, crop_width, pad_left, out_width = self._place(width, scale, random.random())
        box = top, left, crop_height, crop_width
        out_size = [out_height, out_width]
        crop_image = transforms.resized_crop(image, *box, size=out_size, antialias=True)
        crop_labels = transforms.resized_crop(
            labels[None], *box, size=out_size, interpolation=InterpolationMode.NEAREST
        )[0]
        if random.random() < 0.5:
            crop_image, crop_labels = crop_image.flip(-1), crop_labels.flip(-1)
        if self.color:
            for adjust in (
                transforms.adjust_brightness,
                transforms.adjust_contrast,
                transforms.adjust_saturation,
            ):
                factor = float(random.uniform(1 - self.color, 1 + self.color))
                crop_image = adjust(crop_image, factor)
        padded_image = torch.full((3, self.crop, self.crop), 127, dtype=torch.uint8)
        padded_labels = torch.full((self.crop, self.crop), IGNORE_INDEX, dtype=torch.uint8)
        inside = slice(pad_top, pad_top + out_height), slice(pad_left, pad_left + out_width)
        padded_image[:, *inside] = crop_image
        padded_labels[inside] = crop_labels
        return padded_image, padded_labels

    def _place(self, length: int, scale: float, position: float) -> tuple[int, int, int, int]:
        """Along one axis: start and length in the image, start and length in the padded crop."""
        source = max(1, round(self.crop / scale))
        if source > length:
            target = max(1, min(self.crop, round(length * scale)))
            return 0, length, int(position * (self.crop - target + 1)), target
        return int(position * (length - source + 1)), source, 0, self.crop


class TrainingCrops(Dataset[tuple[Tensor, Tensor]]):
    """Augmented crops by (epoch, index). A crop depends only on its key and the seed."""

    def __init__(self, samples: Sequence[Sample], augmentation: Augmentation, seed: int) -> None:
        self.samples = samples
        self.augmentation = augmentation
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        return self.augmentation(self.samples[index], generator(self.seed, "augment", epoch, index))


def training_batches(
    length: int, batch_size: int, epochs: range, seed: int
) -> Iterator[list[tuple[int, int]]]:
    """Shuffle the samples of each epoch into batches.

    Args:
        length: the number of samples.
        batch_size: the number of samples in a batch.
        epochs: the numbers of the epochs.
        seed: the seed of the order, which differs from epoch to epoch.

    Yields:
        Batches of keys for `TrainingCrops`. An incomplete last batch of an epoch is dropped, unless
        it is the only one.
    """
    for epoch in epochs:
        order = generator(seed, "order", epoch).permutation(length).tolist()
        for start in range(0, max(1, length - batch_size + 1), batch_size):
            yield [(epoch, index) for index in order[start : start + batch_size]]


def batches_per_epoch(length: int, batch_size: int) -> int:
    """The number of batches that `training_batches` yields for one epoch."""
    return max(1, length // batch_size)
