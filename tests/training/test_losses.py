"""The loss has the values and gradients of PyTorch's own functions."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cocoseg.core.errors import UserError
from cocoseg.models.heads import resize_bilinear
from cocoseg.training.losses import (
    cross_entropy,
    dice_loss,
    frequency_weights,
    named_weights,
    one_hot,
    segmentation_loss,
)

CLASS_WEIGHTS = torch.tensor([0.2, 1, 3, 1, 0.5], dtype=torch.float64)


def random_batch() -> tuple[Tensor, Tensor]:
    """Logits (2, 5, 9, 7) and labels (2, 9, 7), of which three rows are ignored."""
    torch.manual_seed(0)
    labels = torch.randint(0, 5, (2, 9, 7))
    labels[:, :3] = 255
    return torch.randn(2, 5, 9, 7, dtype=torch.float64), labels.to(torch.uint8)


def gradient(value: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(value, of)[0]


@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS], ids=["unweighted", "weighted"])
def test_cross_entropy_equals_pytorchs_in_value_and_gradient(weights: Tensor | None) -> None:
    logits, labels = random_batch()
    logits.requires_grad_()
    expected = functional.cross_entropy(logits, labels.long(), weights, ignore_index=255)
    result = cross_entropy(logits.log_softmax(dim=1), one_hot(labels, 5), weights)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(gradient(result, logits), gradient(expected, logits))


def test_the_loss_weights_classes_in_both_heads_but_not_in_the_dice_loss() -> None:
    logits, labels = random_batch()
    out, aux = logits.float(), logits.float().flip(1)
    weights = CLASS_WEIGHTS.float()
    expected = [
        functional.cross_entropy(head, labels.long(), weights, ignore_index=255)
        for head in (out, aux)
    ]
    dice = dice_loss(out.log_softmax(dim=1), one_hot(labels, 5))
    loss = segmentation_loss(
        {"out": out, "aux": aux}, labels, aux_weight=0.5, dice_weight=2, class_weights=weights
    )
    torch.testing.assert_close(loss, expected[0] + 0.5 * expected[1] + 2 * dice)
    without_aux = segmentation_loss(
        {"out": out}, labels, aux_weight=0.5, dice_weight=0, class_weights=weights
    )
    torch.testing.assert_close(without_aux, expected[0])


def test_a_class_with_a_hundredth_of_the_pixels_has_ten_times_the_weight() -> None:
    weights = frequency_weights(np.array([10_000, 1_000, 100, 0]))
    torch.testing.assert_close(weights, torch.tensor([10**-0.5, 1, 10**0.5, 1]))


def test_class_weights_are_arranged_by_name() -> None:
    names = ("background", "person", "car")
    assert named_weights({"car": 2}, names).tolist() == [1, 1, 2]
    with pytest.raises(
        UserError, match=r"train\.class_weights: unknown class cat; known classes: b"
    ):
        named_weights({"cat": 2}, names)


@pytest.mark.parametrize("size", [(7, 9), (20, 33), (1, 1), (3, 50)])
def test_resizing_equals_pytorchs_in_value_and_gradient(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 7, 9, dtype=torch.float64, requires_grad=True)
    expected = functional.interpolate(maps, size, mode="bilinear", align_corners=False)
    result = resize_bilinear(maps, *size)
    torch.testing.assert_close(result, expected)
    weights = torch.randn_like(expected)
    torch.testing.assert_close(
        gradient((result * weights).sum(), maps), gradient((expected * weights).sum(), maps)
    )


def test_resizing_has_a_gradient_after_resizing_equal_sizes_in_inference_mode() -> None:
    maps = torch.ones(1, 1, 3, 5, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        resize_bilinear(maps, 11, 13)
    total = resize_bilinear(maps, 11, 13).sum()
    assert gradient(total, maps).sum().item() == pytest.approx(11 * 13)


def test_ignored_pixels_do_not_change_the_loss() -> None:
    logits, labels = random_batch()
    changed = logits.clone()
    changed[:, :, :3] = 100
    for weight in (0.0, 1.0):
        first, second = (
            segmentation_loss({"out": x, "aux": x}, labels, aux_weight=0.5, dice_weight=weight)
            for x in (logits, changed)
        )
        torch.testing.assert_close(first, second)


def test_a_batch_of_ignored_pixels_has_zero_loss_and_zero_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    loss = cross_entropy(logits.log_softmax(dim=1), one_hot(labels, 3))
    assert loss.item() == 0
    assert (gradient(loss, logits) == 0).all()


def test_dice_loss_of_a_worked_example() -> None:
    # One pixel each of classes 0 and 1, predicted with probability 0.75: Dice is 2 * 0.75 / 2.
    probabilities = torch.tensor([[[[0.75, 0.25]], [[0.25, 0.75]]]])
    target = one_hot(torch.tensor([[[0, 1]]]), 2)
    assert dice_loss(probabilities.log(), target).item() == pytest.approx(0.25, abs=1e-6)


def test_dice_loss_is_zero_for_a_confident_correct_prediction() -> None:
    target = one_hot(torch.tensor([[[0, 1, 1, 255]]]), 3)
    assert dice_loss((target * 100).log_softmax(dim=1), target).item() == pytest.approx(0, abs=1e-6)
