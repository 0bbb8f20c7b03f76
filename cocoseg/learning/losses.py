"""The training loss, from operations whose backward pass is deterministic on CUDA as well."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cocoseg.learning.distributed import global_sum


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels (B, H, W) as float32 (B, classes, H, W): one 1 a pixel, none where it is void."""
    numbers = torch.arange(classes, device=labels.device).view(1, -1, 1, 1)
    return (labels[:, None] == numbers).float()


def cross_entropy(log_probabilities: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of the pixels that are not void; both (B, classes, H, W)."""
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
    logits: Mapping[str, Tensor], labels: Tensor, *, aux_weight: float, dice_weight: float
) -> Tensor:
    """The loss of a batch: logits (B, classes, H, W) by head, labels (B, H, W) with 255 for void.

    Cross-entropy of the main head, plus `dice_weight` times its soft Dice loss, plus `aux_weight`
    times the cross-entropy of the auxiliary head, if the network has one.
    """
    main = logits["out"].float().log_softmax(dim=1)
    target = one_hot(labels, main.shape[1])
    loss = cross_entropy(main, target)
    if dice_weight:
        loss = loss + dice_weight * dice_loss(main, target)
    if aux_weight and "aux" in logits:
        loss = loss + aux_weight * cross_entropy(logits["aux"].float().log_softmax(dim=1), target)
    return loss
