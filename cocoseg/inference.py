"""Running the network on whole photos, for validation, evaluation and prediction."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from cocoseg.dataset import Pair, WholePhotos, batches_of_equal_size
from cocoseg.metrics import Confusion, count_confusion
from cocoseg.model import ModelCard


def normalize(images: Tensor, card: ModelCard) -> Tensor:
    """uint8 (B, 3, H, W) to the network's normalised float32 input, channels last."""
    scale = torch.tensor(card.std, device=images.device).view(1, 3, 1, 1) * 255
    shift = torch.tensor(card.mean, device=images.device).view(1, 3, 1, 1) * 255
    return ((images.float() - shift) / scale).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def predict_logits(
    model: nn.Module, images: Tensor, card: ModelCard, height: int, width: int
) -> Tensor:
    """Logits (B, classes, height, width) of resized photos uint8 (B, 3, h, w)."""
    logits: Tensor = model(normalize(images, card))["out"]
    return functional.interpolate(logits, (height, width), mode="bilinear", align_corners=False)


def predict_pairs(
    model: nn.Module,
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
    for indices, (images, truth) in zip(batches, loader, strict=True):
        height, width = truth.shape[-2:]
        logits = predict_logits(model, images.to(device), card, height, width)
        prediction = logits.argmax(dim=1).to(torch.uint8).cpu()
        yield from zip(indices, truth, prediction, strict=True)


def confusion_of_pairs(
    model: nn.Module,
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
