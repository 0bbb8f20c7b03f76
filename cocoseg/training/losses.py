"""The training loss, from operations whose backward pass is deterministic on CUDA as well."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cocoseg.core.errors import UserError
from cocoseg.training.distributed import global_sum


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels (B, H, W) as float32 (B, classes, H, W): one 1 a pixel, none where it is void."""
    numbers = torch.arange(classes, device=labels.device).view(1, -1, 1, 1)
    return (labels[:, None] == numbers).float()


def frequency_weights(pixels: NDArray[np.int64]) -> Tensor:
    """The weight of each class (classes,) float32, from the number of its training pixels.

    The root of the median frequency over its own: Eigen and Fergus, "Predicting Depth, Surface
    Normals and Semantic Labels", 2015, section 4.3.2, have it without the root. 1 without pixels.
    """
    weights = np.ones(len(pixels))
    shown = pixels > 0
    weights[shown] = np.sqrt(np.median(pixels[shown]) / pixels[shown])
    return torch.tensor(weights, dtype=torch.float32)


def named_weights(by_name: Mapping[str, float], names: Sequence[str]) -> Tensor:
    """The weight of each class in the order of `names`, float32, 1 where none is given.

    Raises UserError where a name is no class's.
    """
    if unknown := sorted(set(by_name) - set(names)):
        raise UserError(
            f"train.class_weights: there is no class {unknown[0]}; there are {', '.join(names)}"
        )
    return torch.tensor([float(by_name.get(name, 1)) for name in names])


def cross_entropy(
    log_probabilities: Tensor, target: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of the pixels that are not void; both (B, classes, H, W).

    With `class_weights` (classes,) the mean is weighted by that of each pixel's class.
    """
    if class_weights is not None:
        target = target * class_weights.view(1, -1, 1, 1)
    total = global_sum((log_probabilities * target).sum())
    return -total / global_sum(target.sum()).clamp(min=1)


def dice_loss(log_probabilities: Tensor, target: Tensor) -> Tensor:
    """One minus the mean soft Dice coefficient of the classes that occur in the batch.

    Milletari, Navab and Ahmadi, "V-Net", 2016, section 3, over all pixels of the batch that are not
    void; both (B, classes, H, W).
    """
    pixels = (0, 2, 3)
    counted = target.sum(dim=1, keepdim=True)
    probabilities = log_probabilities.exp() * counted
    intersection = global_sum((probabilities * target).sum(pixels))
    true = global_sum(target.sum(pixels))
    total = global_sum(probabilities.sum(pixels)) + true
    present = (true > 0).float()
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
    """The loss of a batch: logits (B, classes, H, W) by head, labels (B, H, W) with 255 for void.

    Cross-entropy of the main head, plus `dice_weight` times its soft Dice loss, plus `aux_weight`
    times the cross-entropy of the auxiliary head, if the network has one. Both cross-entropies are
    weighted by `class_weights` (classes,).
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
