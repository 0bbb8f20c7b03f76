"""Scoring whole photos: every pixel once, at the original size, whatever the batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cocoseg.dataset import Pair
from cocoseg.draw import draw_example, overlay_labels
from cocoseg.evaluation import Evaluation, evaluate, write_confusion_plot, write_examples
from cocoseg.labels import PALETTE
from cocoseg.model import ModelCard, build_model
from tests.test_dataset import make_pair

CARD = ModelCard("deeplabv3_mobilenet_v3_large", ("background", "red", "blue"), 32)
CPU = torch.device("cpu")


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    sizes = [(64, 48), (48, 64), (64, 48), (90, 50), (64, 48)]
    return [make_pair(tmp_path, f"{i}", *size) for i, size in enumerate(sizes)]


@pytest.fixture
def evaluation(pairs: list[Pair]) -> Evaluation:
    torch.manual_seed(0)
    model = build_model(CARD.architecture, 3)
    return evaluate(model, CARD, pairs, batch_size=2, workers=0, device=CPU)


def test_every_pixel_of_every_photo_counts_once(pairs: list[Pair], evaluation: Evaluation) -> None:
    for pair, confusion in zip(pairs, evaluation.confusions, strict=True):
        _, labels = pair.read()
        truth = np.bincount(labels.numpy().ravel(), minlength=3)
        assert confusion.sum(axis=1).tolist() == truth.tolist()


def test_the_prediction_is_the_class_of_the_highest_upsampled_logit(pairs: list[Pair]) -> None:
    torch.manual_seed(0)
    model = build_model(CARD.architecture, 3).eval()
    image, labels = pairs[3].read()
    small = torch.nn.functional.interpolate(
        image[None].float() / 255, (32, 58), mode="bilinear", antialias=True
    )
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CARD.mean, CARD.std))
    with torch.inference_mode():
        logits = model((small - mean) / std)["out"]
    logits = torch.nn.functional.interpolate(logits, (50, 90), mode="bilinear")
    expected = logits.argmax(dim=1)[0].numpy()
    evaluation = evaluate(model, CARD, pairs[3:4], batch_size=1, workers=0, device=CPU)
    counted = np.zeros((3, 3), int)
    np.add.at(counted, (labels.numpy(), expected), 1)
    # The project resizes in 8 bits, so that a few pixels on borders may fall to the other side.
    assert np.abs(evaluation.confusion - counted).sum() <= 0.02 * expected.size


def test_examples_go_from_the_best_to_the_worst(evaluation: Evaluation) -> None:
    from cocoseg.metrics import mean_iou

    scores = [mean_iou(confusion) for confusion in evaluation.confusions]
    chosen = [scores[index] for index in evaluation.spread_by_score(3)]
    assert chosen == [max(scores), sorted(scores)[2], min(scores)]
    assert len(evaluation.spread_by_score(99)) == len(scores)


def test_examples_are_pictures_named_by_rank_and_photo(
    tmp_path: Path, pairs: list[Pair], evaluation: Evaluation
) -> None:
    folder = tmp_path / "examples"
    folder.mkdir()
    write_examples(folder, evaluation, build_model(CARD.architecture, 3), CARD, 2)
    best, worst = (pairs[index].image.stem for index in evaluation.spread_by_score(2))
    assert sorted(path.name for path in folder.iterdir()) == [f"01_{best}.png", f"02_{worst}.png"]


def test_the_confusion_plot_holds_shares_of_each_row(tmp_path: Path) -> None:
    write_confusion_plot(tmp_path / "c.csv", np.array([[3, 1], [0, 0]]), ["background", "car"])
    assert (tmp_path / "c.csv").read_text().splitlines() == [
        "truth,prediction,share,pixels",
        "background,background,0.75,3",
        "background,car,0.25,1",
        "car,background,0.0,0",
        "car,car,0.0,0",
    ]


def test_an_overlay_colours_labels_and_leaves_background_clear() -> None:
    photo = np.full((20, 20, 3), 100, np.uint8)
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 2
    overlay = overlay_labels(photo, labels, opacity=0.5)
    assert (overlay[labels == 0] == 100).all()
    assert (overlay[5, 5] == PALETTE[2]).all()
    assert (overlay[10, 10] == np.round((100 + PALETTE[2].astype(float)) / 2)).all()


def test_an_example_shows_three_panels_of_the_photos_shape() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    labels = np.zeros((60, 80), np.uint8)
    page = draw_example(photo, labels, labels + 1, ["background", "car"], "x", panel_height=60)
    assert isinstance(page, Image.Image)
    assert page.width > 3 * 80
    pixels = np.asarray(page).reshape(-1, 3)
    assert (pixels == PALETTE[1]).all(axis=1).sum() > 100  # legend and prediction
