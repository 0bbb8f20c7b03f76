"""Running the network on whole photos, for validation, evaluation and prediction."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cocoseg.dataset import Pair, WholePhotos, batches_of_equal_size, load_batches
from cocoseg.metrics import Confusion, count_confusion
from cocoseg.model import ModelCard, SegmentationNetwork


def normalize(images: Tensor, card: ModelCard) -> Tensor:
    """uint8 (B, 3, H, W) to the network's normalised float32 input, channels last."""
    scale = torch.tensor(card.std, device=images.device).view(1, 3, 1, 1) * 255
    shift = torch.tensor(card.mean, device=images.device).view(1, 3, 1, 1) * 255
    return ((images.float() - shift) / scale).contiguous(memory_format=torch.channels_last)


def predict_pairs(
    model: SegmentationNetwork,
    card: ModelCard,
    pairs: Sequence[Pair],
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (index, truth, prediction) of every pair, uint8 (H, W) at the original size.

    The order is by photo size, not by index. Puts the model into evaluation mode.
    """
    batches = batches_of_equal_size(pairs, batch_size)
    loader = DataLoader(
        WholePhotos(pairs, card.size),
        batch_sampler=batches,
        num_workers=workers,
        generator=torch.Generator(),  # the loader would draw from the global one
        pin_memory=device.type == "cuda",
    )
    model.eval()
    for indices, (images, truth) in zip(batches, load_batches(loader), strict=True):
        height, width = truth.shape[-2:]
        with torch.inference_mode():
            logits = model(normalize(images.to(device), card), (height, width))["out"]
            prediction = logits.argmax(dim=1).to(torch.uint8).cpu()
        yield from zip(indices, truth, prediction, strict=True)


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
    for _, truth, prediction in predict_pairs(
        model, card, pairs, batch_size=batch_size, workers=workers, device=device
    ):
        total += count_confusion(truth.numpy(), prediction.numpy(), classes)
    return total
