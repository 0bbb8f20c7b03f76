"""Scores of models whose classes are not those of the data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cocoseg.core.errors import UserError
from cocoseg.core.labels import IGNORE_INDEX, write_mask
from cocoseg.evaluation.class_matching import (
    MatchedScores,
    score_by_class_name,
)
from cocoseg.evaluation.scores import evaluate
from cocoseg.inference.batches import SINGLE_VIEW, Views
from cocoseg.inference.dataset import Sample
from cocoseg.models.heads import resize_bilinear
from cocoseg.models.networks import ModelCard
from tests.networks import FunctionNetwork
from tests.samples import make_sample

DATA = ("red", "blue")
"""The classes of `make_sample`."""


def network_of(*classes: str) -> FunctionNetwork:
    """A network that finds the colors of `make_sample` exactly, under these names.

    `background`, `red` and `blue` are found where they are, `gray` where the background is, and any
    other class nowhere.
    """

    def logits_of(images: Tensor, size: tuple[int, int]) -> Tensor:
        red, _, blue = images.float().unbind(dim=1)
        gray = torch.full_like(red, 110 if "gray" in classes else 0)
        found = {"background": torch.full_like(red, 100), "red": red, "blue": blue, "gray": gray}
        logits = torch.stack([found.get(name, torch.zeros_like(red)) for name in classes], dim=1)
        return resize_bilinear(logits, *size)

    return FunctionNetwork(logits_of, ModelCard("lraspp_mobilenet_v3_large", classes, 48))


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Images of 48 rows: 12 rows of background, above bands of 22, 22 and 20 columns."""
    return [make_sample(tmp_path, f"{number}") for number in range(3)]


def score(samples: list[Sample], *classes: str, views: Views = SINGLE_VIEW) -> MatchedScores:
    network = network_of(*classes)
    return score_by_class_name(network, samples, DATA, batch_size=2, workers=0, views=views)


@pytest.mark.parametrize("views", [SINGLE_VIEW, Views(scales=(0.5, 1.0), flip=True)])
def test_classes_in_another_order_have_the_scores_of_the_evaluate_stage(
    samples: list[Sample], views: Views
) -> None:
    wrong = np.full((48, 64), 1, np.uint8)
    wrong[:, ::5] = IGNORE_INDEX
    write_mask(samples[0].mask, wrong)
    objects = {sample.image.stem: [] for sample in samples}
    names = ("background", *DATA)
    arguments = {"batch_size": 2, "workers": 0, "views": views}
    staged = evaluate(network_of(*names), samples, objects, **arguments).scores()
    assert 0.2 < staged["miou"] < 0.9
    matched = score(samples, "background", "blue", "red", views=views)
    assert {**staged, **matched} == {**staged, "unknown_to_model": [], "unknown_to_data": []}


def test_predictions_of_a_class_that_the_data_does_not_have_count_as_background(
    samples: list[Sample],
) -> None:
    scores = score(samples, "background", "gray", "red", "green", "blue")
    assert scores["iou"] == {"background": 1, "red": 1, "blue": 1}
    assert scores["unknown_to_data"] == ["gray", "green"]


def test_pixels_of_a_class_that_the_model_does_not_have_are_errors_of_the_others(
    samples: list[Sample],
) -> None:
    """The model finds background where the data has blue: 36 x 20 of 48 x 64 pixels."""
    scores = score(samples, "background", "red", "green")
    background, blue = 48 * 22 + 12 * 42, 36 * 20
    iou = round(background / (background + blue), 6)
    assert scores["iou"] == {"background": iou, "red": 1}
    assert scores["miou"] == pytest.approx((iou + 1) / 2, abs=1e-6)
    assert scores["miou_interval"] == {"low": scores["miou"], "high": scores["miou"]}
    assert scores["pixel_accuracy"] == round(1 - blue / (48 * 64), 6)
    assert scores["mean_accuracy"] == 1
    assert scores["unknown_to_model"] == ["blue"]
    assert scores["unknown_to_data"] == ["green"]


def test_the_mean_is_undefined_where_the_ground_truth_shows_no_common_class(
    samples: list[Sample],
) -> None:
    for sample in samples:
        write_mask(sample.mask, np.full((48, 64), 2, np.uint8))
    scores = score(samples, "background", "red")
    assert scores["miou"] is scores["mean_accuracy"] is None
    assert scores["miou_interval"]["reason"] == "no image shows a class"
    assert scores["iou"] == {"background": 0, "red": 0}


def test_a_model_without_a_common_class_is_refused_in_one_line(samples: list[Sample]) -> None:
    with pytest.raises(UserError, match="no class in common: the model has green, gray; the data"):
        score(samples, "background", "green", "gray")


def test_a_split_without_images_or_labels_is_refused_in_one_line(samples: list[Sample]) -> None:
    with pytest.raises(UserError, match="the split has no images"):
        score([], "background", "red")
    write_mask(samples[0].mask, np.full((48, 64), IGNORE_INDEX, np.uint8))
    with pytest.raises(UserError, match="all pixels of the images are ignored"):
        score(samples[:1], "background", "red")
