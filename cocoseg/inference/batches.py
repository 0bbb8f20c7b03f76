"""Samples in batches: load them, run a network on them, count the result.

Used by validation, evaluation and export.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cocoseg.core.errors import UserError
from cocoseg.inference.backends import Network
from cocoseg.inference.confusion import Confusion, count_confusion
from cocoseg.inference.dataset import Sample, WholeImages
from cocoseg.inference.tiling import Tiles, tiled_logits

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


def batches_of_equal_size(samples: Sequence[Sample], batch_size: int) -> list[list[int]]:
    """Indices of photos grouped into batches in which all have the same size."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, sample in enumerate(samples):
        by_size.setdefault(sample.size(), []).append(index)
    return [
        indices[start : start + batch_size]
        for indices in by_size.values()
        for start in range(0, len(indices), batch_size)
    ]


@dataclass(frozen=True)
class SamplePrediction:
    """What a network predicts for one sample.

    Attributes:
        index: the position of the sample in its sequence.
        ground_truth: the sample's own labels, uint8 (H, W).
        labels: the predicted labels, uint8 (H, W).
        confidence: the softmax probability of the predicted label, float32 (H, W).
        probabilities: the softmax probability of each class, float32 (classes, H, W), on the device
            of the network.
    """

    index: int
    ground_truth: Tensor
    labels: Tensor
    confidence: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class Views:
    """Views of each image over which probabilities are averaged (test-time augmentation).

    Attributes:
        scales: each view is the image at this multiple of the network's input size.
        flip: whether each view is seen mirrored left to right as well.
        tiles: the views of an image are tiles as in `tile_grids`, not only the whole image.
    """

    scales: Sequence[float] = (1.0,)
    flip: bool = False
    tiles: Tiles | None = None

    def sizes(self, size: int) -> list[int]:
        """The shorter side in pixels of each view, for a network of input `size`."""
        return [max(32, round(size * scale)) for scale in self.scales]


SINGLE_VIEW = Views()


def predict_samples(
    network: Network,
    samples: Sequence[Sample],
    *,
    batch_size: int,
    workers: int,
    views: Views = SINGLE_VIEW,
) -> Iterator[SamplePrediction]:
    """Predict every sample at its original size.

    Args:
        network: the network.
        samples: the samples.
        batch_size: the number of images of one size, or of tiles of one image, in a batch.
        workers: the number of processes that load images; tiles are cut in this process.
        views: the views of each image.

    Yields:
        The predictions, grouped by image size, not in the order of the samples.
    """
    sizes = views.sizes(network.card.size)
    if views.tiles:
        for index, sample in enumerate(samples):
            image, ground_truth = sample.read()
            logits = tiled_logits(
                lambda inputs, size: _averaged_logits(network, inputs, size, views.flip),
                network.card,
                image,
                views.tiles,
                batch_size,
                sizes,
            )
            with torch.inference_mode():
                probabilities = torch.cat([rows for _, rows in logits], dim=1).softmax(dim=0)
                confidence, labels = probabilities.max(dim=0)
            found = labels.to(torch.uint8).cpu(), confidence.cpu(), probabilities
            yield SamplePrediction(index, ground_truth, *found)
        return
    batches = batches_of_equal_size(samples, batch_size)
    loaders = [
        DataLoader(
            WholeImages(samples, size),
            batch_sampler=batches,
            num_workers=workers,
            generator=torch.Generator(),  # the loader would draw from the global one
            pin_memory=network.device.type == "cuda",
        )
        for size in sizes
    ]
    for indices, *by_scale in zip(batches, *map(load_batches, loaders), strict=True):
        ground_truth = by_scale[0][1]
        height, width = ground_truth.shape[-2:]
        probabilities, confidence, labels = _predict(
            network, [images for images, _ in by_scale], (height, width), views.flip
        )
        found = labels.to(torch.uint8).cpu(), confidence.cpu(), probabilities
        yield from map(SamplePrediction, indices, ground_truth, *found)


@torch.inference_mode()
def _predict(
    network: Network, inputs: Sequence[Tensor], size: tuple[int, int], flip: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (B, classes, *size), averaged over the inputs; the highest, and its label."""
    total = torch.zeros((), device=network.device)
    for images in inputs:
        logits = network(images, size)
        total = total + logits.softmax(dim=1)
        if flip:
            total = total + network(images.flip(-1), size).flip(-1).softmax(dim=1)
    probabilities = total / (len(inputs) * (1 + flip))
    confidence, labels = probabilities.max(dim=1)
    if len(inputs) == 1 and not flip:
        # After softmax, the highest two may have become equal. (`argmax` takes 15 times as long.)
        labels = logits.max(dim=1).indices
    return probabilities, confidence, labels


def _averaged_logits(
    network: Network, inputs: Sequence[Tensor], size: tuple[int, int], flip: bool
) -> Tensor:
    """Logits (B, classes, *size), of several inputs up to a number that all classes share."""
    if len(inputs) == 1 and not flip:
        return network(inputs[0], size)
    probabilities, _, _ = _predict(network, inputs, size, flip)
    return probabilities.clamp_min(1e-30).log()  # 0 has no logarithm


def confusion_of_samples(
    network: Network, samples: Sequence[Sample], *, batch_size: int, workers: int
) -> Confusion:
    """The confusion matrix (classes, classes) over all pixels of the samples."""
    classes = len(network.card.classes)
    total = np.zeros((classes, classes), np.int64)
    for found in predict_samples(network, samples, batch_size=batch_size, workers=workers):
        total += count_confusion(found.ground_truth.numpy(), found.labels.numpy(), classes)
    return total
