"""The training loss, from operations whose backward pass is deterministic on CUDA as well."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cocoseg.core.errors import UserError
from cocoseg.training.distributed import global_sum


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Encode labels (B, H, W) as float32 (B, classes, H, W); ignored pixels are 0 throughout."""
    numbers = torch.arange(classes, device=labels.device).view(1, -1, 1, 1)
    return (labels[:, None] == numbers).float()


def frequency_weights(pixels: NDArray[np.int64]) -> Tensor:
    """Weight each class by the square root of the median class frequency over its own frequency.

    Median frequency balancing: Eigen and Fergus, "Predicting Depth, Surface Normals and Semantic
    Labels", 2015, section 4.3.2, without the square root.

    Args:
        pixels: the number of training pixels of each class, int64 (classes,).

    Returns:
        The weights, float32 (classes,); 1 for a class without pixels.
    """
    weights = np.ones(len(pixels))
    shown = pixels > 0
    weights[shown] = np.sqrt(np.median(pixels[shown]) / pixels[shown])
    return torch.tensor(weights, dtype=torch.float32)


def named_weights(by_name: Mapping[str, float], names: Sequence[str]) -> Tensor:
    """Arrange weights in the order of `names`: float32 (classes,), 1 for a class without one.

    Raises:
        UserError: a key of `by_name` is not in `names`.
    """
    if unknown := sorted(set(by_name) - set(names)):
        raise UserError(
            f"train.class_weights: unknown class {unknown[0]}; known classes: {', '.join(names)}"
        )
    return torch.tensor([float(by_name.get(name, 1)) for name in names])


def cross_entropy(
    log_probabilities: Tensor, target: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy over all pixels that are not ignored, in all processes.

    Args:
        log_probabilities: the log-softmax of the logits, (B, classes, H, W).
        target: the labels from `one_hot`, (B, classes, H, W).
        class_weights: the weight of each pixel in the mean, by its class, (classes,).

    Returns:
        The scalar loss; 0 if all pixels are ignored.
    """
    if class_weights is not None:
        target = target * class_weights.view(1, -1, 1, 1)
    total = global_sum((log_probabilities * target).sum())
    return -total / global_sum(target.sum()).clamp(min=1)


def dice_loss(log_probabilities: Tensor, target: Tensor) -> Tensor:
    """One minus the mean soft Dice coefficient of the classes that occur in the batch.

    Milletari, Navab and Ahmadi, "V-Net", 2016, section 3, but without squares in the denominator.

    Args:
        log_probabilities: the log-softmax of the logits, (B, classes, H, W).
        target: the labels from `one_hot`, (B, classes, H, W).

    Returns:
        The scalar loss over the pixels of the batch that are not ignored, in all processes.
    """
    pixels = (0, 2, 3)
    counted = target.sum(dim=1, keepdim=True)
    probabilities = log_probabilities.exp() * counted
    intersection = global_sum((probabilities * target).sum(pixels))
    annotated = global_sum(target.sum(pixels))
    total = global_sum(probabilities.sum(pixels)) + annotated
    present = (annotated > 0).float()
    dice = 2 * intersection / total.clamp(min=1e-6)
    return 1 - (dice * present).sum() / present.sum().clamp(min=1)


def segmentation_loss(
    logits: Mapping[str, Tensor],
    labels: Tensor,
    *,
    aux_weight: float,
    dice_weight: float,
    class_weights: Tensor | None = None,
) -> Tensor:
    """The loss of a batch: cross-entropy of both heads and Dice loss of the main head.

    Args:
        logits: the logits of each head, (B, classes, H, W): `out` and, optionally, `aux`.
        labels: the labels, uint8 (B, H, W); 255 is ignored.
        aux_weight: the weight of the auxiliary head's cross-entropy.
        dice_weight: the weight of the main head's Dice loss.
        class_weights: the weight of each class in both cross-entropies, (classes,).

    Returns:
        The scalar loss.
    """
    main = logits["out"].float().log_softmax(dim=1)
    target = one_hot(labels, main.shape[1])
    loss = cross_entropy(main, target, class_weights)
    if dice_weight:
        loss = loss + dice_weight * dice_loss(main, target)
    if aux_weight and "aux" in logits:
        auxiliary = logits["aux"].float().log_softmax(dim=1)
        loss = loss + aux_weight * cross_entropy(auxiliary, target, class_weights)
    return loss
