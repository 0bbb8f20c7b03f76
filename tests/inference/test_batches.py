"""Predictions of samples in batches: probabilities, views and counts."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cocoseg.core.errors import UserError
from cocoseg.inference.batches import Views, confusion_of_samples, load_batches, predict_samples
from cocoseg.inference.confusion import count_confusion
from cocoseg.inference.dataset import Sample, resize_shorter_side
from cocoseg.models.heads import resize_bilinear
from cocoseg.models.networks import ModelCard, coarse_size
from tests.networks import NAMES, FunctionNetwork
from tests.samples import make_sample


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    sizes = [(64, 48), (48, 64), (64, 48)]
    return [make_sample(tmp_path, str(i), *size) for i, size in enumerate(sizes)]


def logits_of(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The color values, one class each, and a ramp from left to right, to distinguish mirrors."""
    logits = images.float() / 64
    logits[:, 1] += torch.linspace(0, 3, images.shape[3])
    return resize_bilinear(logits, *size)


NETWORK = FunctionNetwork(logits_of, ModelCard("lraspp_mobilenet_v3_large", NAMES, 96))


def softmax(logits: Tensor) -> Tensor:
    """The softmax of logits (1, classes, H, W), by its definition."""
    exponentials = logits.double().exp()
    return (exponentials / exponentials.sum(dim=1, keepdim=True))[0]


def test_probabilities_are_the_softmax_of_the_logits(samples: list[Sample]) -> None:
    predictions = list(predict_samples(NETWORK, samples, batch_size=2, workers=0))
    assert [found.index for found in predictions] == [0, 2, 1]
    for found in predictions:
        image, ground_truth = samples[found.index].read()
        logits = NETWORK(resize_shorter_side(image, 96)[None], ground_truth.shape)
        expected = softmax(logits)
        assert torch.equal(found.ground_truth, ground_truth)
        assert torch.allclose(found.probabilities.double(), expected, atol=1e-5)
        assert torch.equal(found.confidence, found.probabilities.amax(dim=0))
        assert torch.equal(found.labels.long(), expected.argmax(dim=0))
        assert found.labels.unique().numel() > 1


def test_views_are_averaged_over_scales_and_mirror_images(samples: list[Sample]) -> None:
    views = Views(scales=(0.5, 1.25), flip=True)
    assert views.sizes(96) == [48, 120]
    assert Views(scales=(0.1,)).sizes(96) == [32]
    for found in predict_samples(NETWORK, samples, batch_size=8, workers=0, views=views):
        image, ground_truth = samples[found.index].read()
        expected = torch.zeros(3, *ground_truth.shape, dtype=torch.float64)
        for size in (48, 120):
            images = resize_shorter_side(image, size)[None]
            expected += softmax(NETWORK(images, ground_truth.shape)) / 4
            mirrored = NETWORK(images.flip(-1), ground_truth.shape)
            expected += softmax(mirrored.flip(-1)) / 4
        assert torch.allclose(found.probabilities.double(), expected, atol=1e-5)
        assert torch.equal(found.labels.long(), found.probabilities.argmax(dim=0))


def test_tiles_average_the_views_before_upsampling(samples: list[Sample]) -> None:
    views = Views(flip=True, tiles=64)  # the image fits into a tile
    (found,) = predict_samples(NETWORK, samples[:1], batch_size=8, workers=0, views=views)
    images = resize_shorter_side(samples[0].read()[0], 96)[None]
    size = coarse_size(NETWORK.card, images)
    mirrored = NETWORK(images.flip(-1), size).flip(-1)
    mean = (softmax(NETWORK(images, size)) + softmax(mirrored)) / 2
    expected = softmax(resize_bilinear(mean.log()[None], 48, 64))
    assert torch.allclose(found.probabilities.double(), expected, atol=1e-4)


@pytest.mark.parametrize("tiles", [None, 32])
def test_inference_mode_is_off_between_predictions(
    samples: list[Sample], tiles: int | None
) -> None:
    views = Views(tiles=tiles)
    for _ in predict_samples(NETWORK, samples, batch_size=1, workers=0, views=views):
        assert not torch.is_inference_mode_enabled()


def test_labels_follow_logits_whose_probabilities_are_equal(samples: list[Sample]) -> None:
    """The float32 softmax of these logits is 1/3 for each class."""

    def function(images: Tensor, size: tuple[int, int]) -> Tensor:
        logits = torch.zeros(len(images), 3, *size)
        logits[:, 2] = 1e-9
        return logits

    network = FunctionNetwork(function, NETWORK.card)
    for found in predict_samples(network, samples, batch_size=2, workers=0):
        assert found.probabilities.unique().numel() == 1
        assert (found.labels == 2).all()


def test_the_confusion_of_samples_counts_every_pixel(samples: list[Sample]) -> None:
    expected = sum(
        count_confusion(found.ground_truth.numpy(), found.labels.numpy(), 3)
        for found in predict_samples(NETWORK, samples, batch_size=1, workers=0)
    )
    confusion = confusion_of_samples(NETWORK, samples, batch_size=1, workers=0)
    assert confusion.sum() == 3 * 64 * 48
    assert np.array_equal(confusion, expected)


class Killed(Dataset[tuple[Tensor, Tensor]]):
    """Kills the process that loads it, as the system does if memory runs out."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_killed_loader_is_an_error_that_names_the_shared_memory() -> None:
    with pytest.raises(UserError, match=r"/dev/shm is full: lower runtime.workers, or enlarge"):
        list(load_batches(DataLoader(Killed(), num_workers=1)))
