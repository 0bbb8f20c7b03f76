"""Running the network on whole photos, for validation, evaluation and prediction."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cocoseg.network.confusion import Confusion, count_confusion
from cocoseg.network.model import ModelCard, SegmentationNetwork, coarse_size, fold_batch_norms
from cocoseg.network.photos import (
    Pair,
    WholePhotos,
    batches_of_equal_size,
    load_batches,
    resize_shorter_side,
)
from cocoseg.network.tiles import Tiles, blend_tiles, tile_grids


def normalize(images: Tensor, card: ModelCard) -> Tensor:
    """uint8 (B, 3, H, W) to the network's normalised float32 input, channels last."""
    shift, scale = _by_channel(card.mean, images.device), _by_channel(card.std, images.device)
    return ((images.float() - shift) / scale).contiguous(memory_format=torch.channels_last)


@functools.lru_cache(maxsize=16)  # each copy to a GPU would wait for it
@torch.inference_mode(False)  # made while predicting, it is kept for training as well
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Values of RGB from 0 to 1 as (1, 3, 1, 1) from 0 to 255."""
    return torch.tensor(values, device=device).view(1, 3, 1, 1) * 255


@dataclass(frozen=True)
class Prediction:
    """What the network says about one pair: `labels` uint8 and `confidence` float32, both (H, W).

    The confidence is the softmax probability of the label, of 0 to 1; `probabilities` are those of
    all classes, float32 (classes, H, W), still on the device that computed them. `truth` are the
    pair's own labels, and `index` its place among the pairs.
    """

    index: int
    truth: Tensor
    labels: Tensor
    confidence: Tensor
    probabilities: Tensor


def predict_with_confidence(
    model: SegmentationNetwork,
    card: ModelCard,
    pairs: Sequence[Pair],
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    tiles: Tiles | None = None,
) -> Iterator[Prediction]:
    """Predict every pair at its original size, in the order of photo sizes, not of indices.

    Probabilities are averaged over the photo at each of `scales` times the model's input size and,
    with `flip`, mirrored left to right as well. With `tiles`, those of `tile_grids`, this is done
    with each of them; `batch_size` is the number of tiles then, and there are no workers.
    """
    network = fold_batch_norms(model).to(device)
    sizes = [max(32, round(card.size * scale)) for scale in scales]
    if tiles:
        for index, pair in enumerate(pairs):
            yield Prediction(
                index,
                *_predict_tiled(network, card, pair, sizes, flip, tiles, batch_size, device),
            )
        return
    batches = batches_of_equal_size(pairs, batch_size)
    loaders = [
        DataLoader(
            WholePhotos(pairs, size),
            batch_sampler=batches,
            num_workers=workers,
            generator=torch.Generator(),  # the loader would draw from the global one
            pin_memory=device.type == "cuda",
        )
        for size in sizes
    ]
    for indices, *by_scale in zip(batches, *map(load_batches, loaders), strict=True):
        truth = by_scale[0][1]
        inputs = [normalize(images.to(device), card) for images, _ in by_scale]
        with torch.inference_mode():
            probabilities, confidence, labels = _predict(network, inputs, truth.shape[-2:], flip)
        found = labels.to(torch.uint8).cpu(), confidence.cpu(), probabilities
        yield from map(Prediction, indices, truth, *found)


def _predict(
    model: SegmentationNetwork, inputs: Sequence[Tensor], size: Sequence[int], flip: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (B, classes, *size), averaged over the inputs; the highest, and its label."""
    total = torch.zeros((), device=inputs[0].device)
    for images in inputs:
        logits = model(images, tuple(size))["out"]
        total = total + logits.softmax(dim=1)
        if flip:
            mirrored = model(images.flip(-1), tuple(size))["out"]
            total = total + mirrored.flip(-1).softmax(dim=1)
    probabilities = total / (len(inputs) * (1 + flip))
    confidence, labels = probabilities.max(dim=1)
    if len(inputs) == 1 and not flip:
        # After softmax, the highest two may have become equal. (`argmax` takes 15 times as long.)
        labels = logits.max(dim=1).indices
    return probabilities, confidence, labels


def _predict_tiled(
    model: SegmentationNetwork,
    card: ModelCard,
    pair: Pair,
    sizes: Sequence[int],
    flip: bool,
    tiles: Tiles,
    batch_size: int,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The truth, labels, confidence and probabilities of one pair, as a Prediction has them."""

    def see(views: Sequence[Tensor]) -> Tensor:
        inputs = [
            normalize(torch.stack([resize_shorter_side(v, size) for v in views]).to(device), card)
            for size in sizes
        ]
        size = coarse_size(card, inputs[0])
        if len(inputs) == 1 and not flip:
            logits: Tensor = model(inputs[0], size)["out"]
            return logits
        probabilities, _, _ = _predict(model, inputs, size, flip)
        # Logits but for a number that all classes share; 0 has no logarithm.
        return probabilities.clamp_min(1e-30).log()

    photo, truth = pair.read()
    height, width = truth.shape
    grids = tile_grids(height, width, tiles, card.size)
    with torch.inference_mode():
        rows = [logits for _, logits in blend_tiles(see, photo, grids, batch_size)]
        probabilities = torch.cat(rows, dim=1).softmax(dim=0)
        confidence, labels = probabilities.max(dim=0)
    return truth, labels.to(torch.uint8).cpu(), confidence.cpu(), probabilities


def confusion_of_pairs(
    model: SegmentationNetwork,
    card: ModelCard,
    pairs: Sequence[Pair],
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Confusion:
    """The confusion matrix over all pixels of the pairs."""
    classes = len(card.classes)
    total = np.zeros((classes, classes), np.int64)
    for found in predict_with_confidence(
        model, card, pairs, batch_size=batch_size, workers=workers, device=device
    ):
        total += count_confusion(found.truth.numpy(), found.labels.numpy(), classes)
    return total
