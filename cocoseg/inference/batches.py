"""Loading samples in batches and predicting them, for validation, evaluation and export."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cocoseg.core.errors import UserError
from cocoseg.core.progress import show_progress
from cocoseg.inference.backends import Network
from cocoseg.inference.confusion import Confusion, count_confusion
from cocoseg.inference.dataset import Sample, WholeImages
from cocoseg.inference.tiling import Tiles, tiled_logits

Batch = tuple[Tensor, Tensor]


def load_batches(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """Yield the batches of a loader; raise errors of its workers as a UserError of one line."""
    try:
        yield from loader
    except UserError as error:
        # torch prepends the traceback of the worker to the message.
        raise type(error)(str(error).strip().rsplit(f"{type(error).__name__}: ", 1)[-1]) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a process that loads images died, possibly because memory or /dev/shm is full: lower "
            "runtime.workers, or enlarge /dev/shm (docker run --shm-size=2g)"
        ) from None


def batches_of_equal_size(samples: Sequence[Sample], batch_size: int) -> list[list[int]]:
    """Group the indices of samples into batches of images of one size."""
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
    """Test-time augmentation: the views of each image whose probabilities are averaged.

    Attributes:
        scales: the sizes of the views, as multiples of the network's input size.
        flip: whether to add the mirror image of each view.
        tiles: the side of the tiles into which the image is also divided, as in `tile_grids`.
    """

    scales: Sequence[float] = (1.0,)
    flip: bool = False
    tiles: Tiles | None = None

    def sizes(self, size: int) -> list[int]:
        """The shorter side of each view in pixels, for a network of input `size`."""
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
    """Predict samples at their original sizes.

    Args:
        network: the network.
        samples: the samples.
        batch_size: the number of images of one size, or of tiles of one image, in a batch.
        workers: the number of processes that load images. With tiles, this process loads them.
        views: the views of each image.

    Yields:
        The predictions, grouped by image size rather than in the order of the samples.
    """
    sizes = views.sizes(network.card.size)
    if views.tiles:
        for index, sample in enumerate(samples):
            yield _predict_tiles(network, index, sample, batch_size, views, views.tiles)
        return
    batches = batches_of_equal_size(samples, batch_size)
    loaders = [
        DataLoader(
            WholeImages(samples, size),
            batch_sampler=batches,
            num_workers=workers,
            generator=torch.Generator(),  # keeps the loader from drawing from the global one
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
def _predict_tiles(
    network: Network, index: int, sample: Sample, batch_size: int, views: Views, tiles: Tiles
) -> SamplePrediction:
    image, ground_truth = sample.read()
    rows = tiled_logits(
        lambda inputs, size: averaged_logits(network, inputs, size, views.flip),
        network.card,
        image,
        tiles,
        batch_size,
        views.sizes(network.card.size),
    )
    probabilities = torch.cat([logits for _, logits in rows], dim=1).softmax(dim=0)
    confidence, labels = probabilities.max(dim=0)
    found = labels.to(torch.uint8).cpu(), confidence.cpu(), probabilities
    return SamplePrediction(index, ground_truth, *found)


@torch.inference_mode()
def _predict(
    network: Network, inputs: Sequence[Tensor], size: tuple[int, int], flip: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean probabilities (B, classes, *size) over the inputs, their maxima and the labels."""
    total = torch.zeros((), device=network.device)
    for images in inputs:
        logits = network(images, size)
        total = total + logits.softmax(dim=1)
        if flip:
            total = total + network(images.flip(-1), size).flip(-1).softmax(dim=1)
    probabilities = total / (len(inputs) * (1 + flip))
    confidence, labels = probabilities.max(dim=1)
    if len(inputs) == 1 and not flip:
        # The softmax can round two logits to equal probabilities. (`argmax` is 15 times slower.)
        labels = logits.max(dim=1).indices
    return probabilities, confidence, labels


def averaged_logits(
    network: Network, inputs: Sequence[Tensor], size: tuple[int, int], flip: bool
) -> Tensor:
    """Compute logits, averaged over several views of the same images.

    Args:
        network: the network.
        inputs: the images at each scale, each uint8 (B, 3, h, w).
        size: the (height, width) of the logits.
        flip: whether to add the mirror image of each input.

    Returns:
        The logits (B, classes, *size) of a single view, or the log of the mean probabilities.
    """
    if len(inputs) == 1 and not flip:
        return network(inputs[0], size)
    probabilities, _, _ = _predict(network, inputs, size, flip)
    return probabilities.clamp_min(1e-30).log()  # log(0) is -inf


def confusion_of_samples(
    network: Network, samples: Sequence[Sample], *, batch_size: int, workers: int
) -> Confusion:
    """Predict samples as `predict_samples` does and count their pixels."""
    classes = len(network.card.classes)
    total = np.zeros((classes, classes), np.int64)
    predicted = predict_samples(network, samples, batch_size=batch_size, workers=workers)
    for found in show_progress(predicted, "validation", len(samples)):
        total += count_confusion(found.ground_truth.numpy(), found.labels.numpy(), classes)
    return total
