"""Scoring test images: every pixel once, at the original size, for any batch size."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from cocoseg.coco.instances import Annotation, Category, ImageRecord, Instances
from cocoseg.core.errors import UserError
from cocoseg.core.labels import IGNORE_INDEX, read_mask, write_mask
from cocoseg.evaluation.examples import choose_examples, write_examples
from cocoseg.evaluation.label_errors import find
from cocoseg.evaluation.object_recall import count_objects, objects_by_stem, summarize_objects
from cocoseg.evaluation.plots import write_plots
from cocoseg.evaluation.scores import Evaluation, evaluate
from cocoseg.inference.batches import Views, predict_samples
from cocoseg.inference.confusion import count_confusion
from cocoseg.inference.dataset import Sample
from cocoseg.models.heads import resize_bilinear
from cocoseg.models.networks import ModelCard
from tests import ROOT
from tests.coco_files import painted
from tests.networks import NAMES, FunctionNetwork
from tests.samples import make_sample


def logits_of(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The color values, one class each, and a ramp from left to right, which causes errors."""
    logits = images.float() / 64
    logits[:, 0] += torch.linspace(0, 3, images.shape[3])
    return resize_bilinear(logits, *size)


NETWORK = FunctionNetwork(logits_of, ModelCard("lraspp_mobilenet_v3_large", NAMES, 32))


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    sizes = [(64, 48), (48, 64), (64, 48), (90, 50), (64, 48)]
    return [make_sample(tmp_path, f"{i}", *size) for i, size in enumerate(sizes)]


def score(
    samples: list[Sample],
    *,
    batch_size: int = 2,
    views: Views = Views(),  # noqa: B008
    predictions: Path | None = None,
) -> Evaluation:
    return evaluate(
        NETWORK,
        samples,
        {sample.image.stem: OBJECTS for sample in samples},
        batch_size=batch_size,
        workers=0,
        views=views,
        predictions=predictions,
    )


def rectangle(number: int, label: int, left: int, top: int, width: int, height: int) -> Annotation:
    """An annotation of image 1 that covers exactly this rectangle of pixels."""
    right, bottom = left + width, top + height
    return painted([[left, top, right, top, right, bottom, left, bottom]], label, id=number)


OBJECTS = [rectangle(1, 1, 20, 12, 20, 30), rectangle(2, 2, 40, 16, 8, 30)]
"""Annotations of every image, which differ from the masks."""


@pytest.fixture
def evaluation(samples: list[Sample]) -> Evaluation:
    return score(samples)


def test_every_image_is_counted_against_its_own_ground_truth(
    samples: list[Sample], evaluation: Evaluation
) -> None:
    found_of = {
        samples[found.index].image.stem: found
        for found in predict_samples(NETWORK, samples, batch_size=2, workers=0)
    }
    counts = evaluation.image_counts()
    assert counts.classes == list(NAMES)
    for index, sample in enumerate(samples):
        stem, labels = sample.image.stem, sample.read()[1].numpy()
        prediction = found_of[stem].labels.numpy()
        assert not np.array_equal(labels, prediction)
        assert counts.confusions[stem] == count_confusion(labels, prediction, 3).tolist()
        expected = hashlib.blake2b(labels.tobytes(), digest_size=8).hexdigest()
        assert counts.ground_truths[stem] == expected
        objects = count_objects(OBJECTS, labels, prediction)
        assert evaluation.objects[index].tolist() == objects.tolist()
        findings = find(OBJECTS, labels, prediction, found_of[stem].probabilities.numpy())
        assert list(map(repr, evaluation.findings[index])) == list(map(repr, findings))
    assert evaluation.confusion.sum() == sum(np.prod(sample.size()) for sample in samples)
    assert evaluation.confidences[..., 0].sum() == evaluation.confusion.sum()


def test_scores_and_details_describe_the_same_counts(evaluation: Evaluation) -> None:
    scores, details = evaluation.scores(), evaluation.details()
    assert scores["miou_interval"]["low"] <= scores["miou"] <= scores["miou_interval"]["high"]
    assert 0 < scores["miou_interval"]["low"] < scores["miou_interval"]["high"] < 1
    assert scores["iou"] == {name: row["iou"] for name, row in details["classes"].items()}
    boundary_ious = [row["boundary_iou"] for row in details["classes"].values()]
    assert scores["boundary_miou"] == pytest.approx(np.mean(boundary_ious), abs=1e-6)
    assert scores["images"] == details["classes"]["red"]["images"] == 5
    pixels = [row["pixels"] for row in details["classes"].values()]
    assert pixels == evaluation.confusion.sum(axis=1).tolist()


def test_details_of_a_worked_example(samples: list[Sample]) -> None:
    details = evaluation_of(samples, [*[[10, 5, -1]] * 4, [10, 5, 5]]).details()["classes"]
    interval = details["background"]["iou_interval"]
    assert interval["low"] < details["background"]["iou"] < interval["high"]
    assert details["red"] == {
        "iou": 0.5,
        "dice": 0.666667,
        "precision": 1.0,
        "recall": 0.5,
        "boundary_iou": None,
        "iou_interval": {"low": 0.5, "high": 0.5},
        "images": 5,
        "pixels": 50,
    }
    assert (details["blue"]["images"], details["blue"]["pixels"]) == (1, 10)


def test_scores_do_not_depend_on_the_batch_size(samples: list[Sample]) -> None:
    single, batched = (score(samples, batch_size=size) for size in (1, 3))
    assert single.scores() == batched.scores()
    assert single.details() == batched.details()


def test_written_predictions_are_the_scored_ones(samples: list[Sample], tmp_path: Path) -> None:
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    whole = score(samples)
    tiled = score(samples, views=Views(tiles=40), predictions=predictions)
    assert (tiled.confusions != whole.confusions).any()
    for sample, confusion in zip(samples, tiled.confusions, strict=True):
        labels = read_mask(predictions / f"{sample.image.stem}.png")
        assert (count_confusion(sample.read()[1].numpy(), labels, 3) == confusion).all()


def test_a_split_without_images_is_refused_in_one_line() -> None:
    for split in ("val", "test"):
        with pytest.raises(UserError, match=rf"split\.ratios\.{split}"):
            evaluate(NETWORK, [], {}, split=split, batch_size=1, workers=0)


def test_test_images_with_only_ignored_pixels_are_refused_in_one_line(
    samples: list[Sample],
) -> None:
    ignored = samples[0]
    write_mask(ignored.mask, np.full((48, 64), IGNORE_INDEX, np.uint8))
    with pytest.raises(UserError, match="all pixels of the test images are ignored"):
        score([ignored])
    assert score(samples[:2]).scores()["images"] == 2


def test_objects_are_counted_by_size_of_their_annotation() -> None:
    ground_truth, prediction = np.zeros((2, 200, 200), np.uint8)
    small, medium = rectangle(1, 1, 0, 0, 31, 33), rectangle(2, 2, 50, 0, 32, 32)
    large = rectangle(3, 1, 100, 100, 96, 96)
    ground_truth[0:33, 0:31], ground_truth[0:32, 50:82], ground_truth[100:196, 100:196] = 1, 2, 1
    ground_truth[100:196, 148:196] = 2  # another object covers half of the large one
    prediction[0:16, 0:31] = 1  # less than half of the small one
    prediction[0:16, 50:82] = 2  # exactly half of the medium one
    prediction[100:196, 100:148] = 1  # all visible pixels of the large one
    sizes = summarize_objects(count_objects([small, medium, large], ground_truth, prediction))
    assert sizes["small"]["objects"] == sizes["medium"]["objects"] == 1
    assert [sizes[size]["objects_found"] for size in sizes] == [0, 1, 1]
    assert sizes["small"]["recall"] == round(16 / 33, 6)
    assert sizes["large"]["pixels"] == 96 * 48


def test_hidden_objects_and_crowd_regions_are_not_counted() -> None:
    crowd = rectangle(2, 1, 0, 0, 5, 5)
    crowd.iscrowd = 1
    selection = Instances(
        [ImageRecord(1, "a.b.jpg", 40, 40)],
        [rectangle(1, 1, 0, 0, 10, 10), crowd],
        [Category(1, "red")],
    )
    objects = objects_by_stem(selection)
    assert [annotation.id for annotation in objects["a.b"]] == [1]
    ground_truth = np.full((40, 40), IGNORE_INDEX, np.uint8)
    sizes = summarize_objects(
        count_objects(objects["a.b"], ground_truth, np.ones_like(ground_truth))
    )
    assert sizes["small"] == {
        "area_below": 1024,
        "objects": 0,
        "objects_found": None,
        "pixels": 0,
        "recall": None,
    }


def evaluation_of(samples: list[Sample], hits: list[list[int]]) -> Evaluation:
    """An evaluation of images with 10 pixels per class, by the correct pixels of each class.

    Wrong pixels are background, or red where the class is background; -1 omits a class.
    """
    confusions = np.zeros((len(samples), 3, 3), np.int64)
    for confusion, row in zip(confusions, hits, strict=True):
        for label, correct in enumerate(row):
            if correct >= 0:
                confusion[label, label] = correct
                confusion[label, 0 if label else 1] += 10 - correct
    empty = np.zeros((len(samples), 3, 4), np.int64)
    counts = confusions, empty[..., :2], empty, np.ones((1, 1, 3))
    return Evaluation(samples, NAMES, *counts, [""] * len(samples), 1.0)


def test_without_a_class_in_the_ground_truth_the_mean_iou_is_undefined(
    samples: list[Sample],
) -> None:
    scores = evaluation_of(samples, [[9, -1, -1], *[[10, -1, -1]] * 4]).scores()
    assert scores["miou"] is scores["mean_accuracy"] is scores["boundary_miou"] is None
    assert scores["miou_interval"]["reason"] == "no image shows a class"
    assert scores["pixel_accuracy"] == 0.98
    assert scores["iou"] == {"background": 0.98, "red": 0.0, "blue": None}
    assert scores["empty_images"] == {"images": 5, "false_alarms": 0.2, "false_pixels": 0.02}


def test_without_a_class_in_the_ground_truth_the_boundary_miou_is_undefined(
    samples: list[Sample],
) -> None:
    for sample in samples:
        write_mask(sample.mask, np.zeros_like(read_mask(sample.mask)))
    evaluation = score(samples)
    assert evaluation.boundaries.any()
    scores = evaluation.scores()
    assert scores["miou"] is scores["boundary_miou"] is None
    assert scores["empty_images"]["false_alarms"] == 1.0


def test_a_class_in_a_single_image_leaves_the_mean_iou_without_an_interval(
    samples: list[Sample],
) -> None:
    scores = evaluation_of(samples, [[10, 10, -1], *[[10, -1, -1]] * 4]).scores()
    assert scores["miou_interval"]["low"] is None
    assert "fewer than two images" in scores["miou_interval"]["reason"]
    scores = evaluation_of(samples, [*[[10, 10, -1]] * 2, *[[10, -1, -1]] * 3]).scores()
    assert scores["miou_interval"] == {"low": 1.0, "high": 1.0}


def test_images_without_objects_have_scores_of_their_own(samples: list[Sample]) -> None:
    hits = [[10, 5, -1], [10, -1, 5], [10, -1, -1], [7, -1, -1], [-1, -1, -1]]
    evaluation = evaluation_of(samples, hits)  # all pixels of the last image are ignored
    assert evaluation.scores()["empty_images"] == {
        "images": 2,
        "false_alarms": 0.5,
        "false_pixels": 0.15,
    }
    without = evaluation_of(samples, [*hits[:2], [-1, 10, -1], [10, 5, 5], [-1, -1, -1]])
    assert "empty_images" not in without.scores()


def test_examples_are_best_median_worst_and_the_median_of_each_class(tmp_path: Path) -> None:
    samples = [make_sample(tmp_path, str(i)) for i in range(9)]
    hits = [[10, n, n if n != 4 else -1] for n in (7, 1, 5, 9, 3, 8, 2, 6, 4)]
    evaluation = evaluation_of(samples, hits)
    chosen = [(example.name, example.index) for example in choose_examples(evaluation, 8)]
    # By mean IoU: 3, 5, 0, 7, 8, 2, 4, 6, 1. Of the rest by red: 6, 4, 2, 7, 0, 5; then by blue,
    # which 8 does not show: 6, 4, 2, 0, 5.
    assert chosen == [("1_best", 3), ("2_median", 8), ("3_worst", 1), ("4_red", 7), ("5_blue", 2)]
    assert [e.name for e in choose_examples(evaluation, 2)] == ["1_best", "3_worst"]


def test_the_best_example_shows_an_object_if_any_image_does(tmp_path: Path) -> None:
    samples = [make_sample(tmp_path, str(i)) for i in range(3)]
    hits = [[10, 5, -1], [10, -1, -1], [10, 7, -1]]
    assert choose_examples(evaluation_of(samples, hits), 1)[0].index == 2
    nothing = evaluation_of(samples, [[8, -1, -1], [10, -1, -1], [9, -1, -1]])
    assert choose_examples(nothing, 1)[0].index == 1


def test_examples_are_drawn_and_listed(
    tmp_path: Path, samples: list[Sample], evaluation: Evaluation
) -> None:
    examples, panels = tmp_path / "examples", tmp_path / "panels"
    examples.mkdir()
    panels.mkdir()
    chosen = choose_examples(evaluation, 3)
    listed = write_examples(examples, panels, evaluation, chosen, NETWORK, batch_size=2)
    names = ["1_best", "2_median", "3_worst"]
    assert sorted(path.stem for path in examples.glob("*.png")) == names
    assert [example["name"] for example in listed] == names
    for example, row in zip(chosen, listed, strict=True):
        assert row["image"] == samples[example.index].image.name
        assert row["miou"] == pytest.approx(evaluation.image_scores()[example.index], abs=1e-6)
    views = ("image", "ground_truth", "prediction", "errors")
    assert {path.name for path in panels.iterdir()} == {
        f"{n}_{v}.jpg" for n in names for v in views
    }
    # The errors panel colors the pixels that the confusion matrix counts as wrong.
    best = chosen[0].index
    wrong = 1 - np.trace(evaluation.confusions[best]) / evaluation.confusions[best].sum()
    panel = np.asarray(Image.open(panels / "1_best_errors.jpg").convert("HSV"), float)
    assert (panel[..., 1] > 90).mean() == pytest.approx(wrong, abs=0.03)


def test_plots_contain_the_counts(tmp_path: Path, samples: list[Sample]) -> None:
    evaluation = evaluation_of(samples, [[10, 5, -1]] * 5)
    write_plots(tmp_path, evaluation)

    def rows(name: str) -> list[dict[str, str]]:
        with (tmp_path / name).open(newline="") as file:
            return list(csv.DictReader(file))

    confusion = {(row["ground_truth"], row["prediction"]): row for row in rows("confusion.csv")}
    assert confusion["red", "background"]["fraction"] == "0.5"
    assert confusion["red", "background"]["pixels"] == "25"
    assert confusion["blue", "blue"]["fraction"] == "0.0"
    assert [row["iou"] for row in rows("iou.csv")] == ["0.666667", "0.5", ""]
    assert {row["boundary_iou"] for row in rows("iou.csv")} == {""}
    images = rows("images.csv")
    assert [row["fraction"] for row in images] == ["0.2", "0.4", "0.6", "0.8", "1.0"]
    assert {row["miou"] for row in images} == {"0.5833"}
    assert rows("reliability.csv") == [{"confidence": "1.0", "accuracy": "1.0", "pixels": "1"}]


def test_titles_of_plots_have_no_apostrophes() -> None:
    """DVC does not escape them in the JavaScript of its page, so the plot would stay blank."""
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    plots = [plot for stage in pipeline["stages"].values() for plot in stage.get("plots", [])]
    titles = [props.get("title", path) for plot in plots for path, props in plot.items()]
    assert len(titles) >= 5
    assert not [title for title in titles if "'" in title]
