"""Scoring whole photos: every pixel once, at the original size, whatever the batches."""

import csv
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cocoseg.coco.instances import Annotation, Category, ImageRecord, Instances
from cocoseg.core.drawing import ERRORS, draw_example, overlay_errors, overlay_labels
from cocoseg.core.errors import UserError
from cocoseg.core.labels import IGNORE_INDEX, PALETTE, read_mask, write_mask
from cocoseg.evaluation.examples import choose_examples, write_examples
from cocoseg.evaluation.object_recall import count_objects, objects_by_stem, summarize_objects
from cocoseg.evaluation.plots import write_plots
from cocoseg.evaluation.scores import Evaluation, evaluate
from cocoseg.inference.batches import predict_with_confidence
from cocoseg.inference.confusion import count_confusion, iou_scores
from cocoseg.inference.dataset import Sample
from cocoseg.models.networks import ModelCard, SegmentationNetwork, build_model
from tests import ROOT
from tests.samples import make_sample

CARD = ModelCard("deeplabv3_mobilenet_v3_large", ("background", "red", "blue"), 32)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> SegmentationNetwork:
    """Random weights, but batch norms that know their inputs: else all outputs are constant."""
    torch.manual_seed(0)
    network = build_model(CARD.architecture, 3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    coarse = torch.randn(8, 3, 4, 4)
    with torch.no_grad():
        network.train()(torch.nn.functional.interpolate(coarse, (64, 64), mode="nearest"))
    return network.eval()


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    sizes = [(64, 48), (48, 64), (64, 48), (90, 50), (64, 48)]
    return [make_sample(tmp_path, f"{i}", *size) for i, size in enumerate(sizes)]


def score(
    model: SegmentationNetwork, samples: list[Sample], *, batch_size: int = 2, **views: object
) -> Evaluation:
    objects: dict[str, list[Annotation]] = {sample.image.stem: [] for sample in samples}
    return evaluate(
        model, CARD, samples, objects, batch_size=batch_size, workers=0, device=CPU, **views
    )


@pytest.fixture
def evaluation(model: SegmentationNetwork, samples: list[Sample]) -> Evaluation:
    return score(model, samples)


def rectangle(number: int, label: int, left: int, top: int, width: int, height: int) -> Annotation:
    """An annotation of image 1 that covers exactly this rectangle of pixels."""
    right, bottom = left + width, top + height
    polygon = [[left, top, right, top, right, bottom, left, bottom]]
    return Annotation(number, 1, label, msgspec.Raw(msgspec.json.encode(polygon)))


def test_every_pixel_of_every_photo_counts_once(
    samples: list[Sample], evaluation: Evaluation
) -> None:
    for sample, confusion in zip(samples, evaluation.confusions, strict=True):
        _, labels = sample.read()
        ground_truth = np.bincount(labels.numpy().ravel(), minlength=3)
        assert confusion.sum(axis=1).tolist() == ground_truth.tolist()
    assert evaluation.confidences[..., 0].sum() == evaluation.confusion.sum()


def test_the_prediction_is_the_class_of_the_highest_upsampled_logit(
    model: SegmentationNetwork, samples: list[Sample]
) -> None:
    image, labels = samples[3].read()
    small = torch.nn.functional.interpolate(
        image[None].float() / 255, (32, 57), mode="bilinear", antialias=True
    )
    small = (small * 255).round() / 255  # photos are resized in 8 bits
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CARD.mean, CARD.std))
    with torch.inference_mode():
        logits = model.classifier(model.backbone((small - mean) / std)["out"])
    logits = torch.nn.functional.interpolate(logits, (50, 90), mode="bilinear")
    expected = logits.argmax(dim=1)[0].numpy()
    counted = np.zeros((3, 3), int)
    np.add.at(counted, (labels.numpy(), expected), 1)
    # torchvision's 8-bit resizing rounds its weights too; a few pixels fall to the other side.
    confusion = score(model, samples[3:4]).confusion
    assert np.abs(confusion - counted).sum() <= 0.02 * expected.size


def test_scores_are_the_same_whatever_the_batch_size(
    model: SegmentationNetwork, samples: list[Sample]
) -> None:
    alone, together = (score(model, samples, batch_size=size) for size in (1, 3))
    assert alone.scores() == together.scores()
    assert alone.details() == together.details()


def test_the_confidence_is_the_softmax_of_the_predicted_class(
    model: SegmentationNetwork, samples: list[Sample]
) -> None:
    (found,) = predict_with_confidence(
        model, CARD, samples[:1], batch_size=1, workers=0, device=CPU
    )
    assert found.confidence.shape == found.labels.shape == found.ground_truth.shape == (48, 64)
    assert found.confidence.min() >= 1 / 3  # of three classes, the highest has at least a third
    assert found.confidence.max() <= 1


def test_with_flip_a_mirrored_photo_gets_the_mirrored_labels(
    model: SegmentationNetwork, tmp_path: Path
) -> None:
    sample = make_sample(tmp_path, "straight", 64, 32)
    mirrored = Sample(tmp_path / "images/mirrored.png", sample.mask)
    Image.open(sample.image).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored.image)

    def difference(flip: bool) -> float:
        straight, other = predict_with_confidence(
            model, CARD, [sample, mirrored], batch_size=1, workers=0, device=CPU, flip=flip
        )
        return float((straight.confidence - other.confidence.flip(1)).abs().max())

    assert difference(flip=True) < 1e-5 < difference(flip=False)


def test_several_scales_are_averaged(model: SegmentationNetwork, samples: list[Sample]) -> None:
    def probabilities(*scales: float) -> torch.Tensor:
        (found,) = predict_with_confidence(
            model, CARD, samples[:1], batch_size=1, workers=0, device=CPU, scales=scales
        )
        torch.testing.assert_close(found.confidence, found.probabilities.max(dim=0).values)
        return found.probabilities

    one, two, both = probabilities(1.0), probabilities(2.0), probabilities(1.0, 2.0)
    torch.testing.assert_close(both, (one + two) / 2)
    assert not torch.equal(one, both)


def test_with_tiles_everything_is_counted_as_without(
    model: SegmentationNetwork, samples: list[Sample], tmp_path: Path
) -> None:
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    whole, tiled = score(model, samples), score(model, samples, tiles=40, predictions=predictions)
    assert (tiled.confusions.sum(axis=2) == whole.confusions.sum(axis=2)).all()
    assert (tiled.confusions != whole.confusions).any()
    assert tiled.confidences[..., 0].sum() == whole.confusion.sum()
    for sample, counted in zip(samples, tiled.confusions, strict=True):
        labels = read_mask(predictions / f"{sample.image.stem}.png")
        _, ground_truth = sample.read()
        assert (count_confusion(ground_truth.numpy(), labels, 3) == counted).all()
    as_whole = score(model, samples, tiles=90)  # no photo is larger
    assert (as_whole.confusions == whole.confusions).all()


def test_with_tiles_flip_and_scales_are_averaged_in_each(
    model: SegmentationNetwork, samples: list[Sample]
) -> None:
    plain, more = (
        score(model, samples[3:4], tiles=32, **views)
        for views in ({}, {"flip": True, "scales": [1.0, 1.5]})
    )
    assert (plain.confusions.sum(axis=2) == more.confusions.sum(axis=2)).all()
    assert (plain.confusions != more.confusions).any()


def test_a_split_without_images_is_refused_in_one_line(model: SegmentationNetwork) -> None:
    with pytest.raises(UserError, match=r"split\.ratios\.test"):
        score(model, [])


def test_test_images_that_are_all_void_are_refused_in_one_line(
    model: SegmentationNetwork, samples: list[Sample]
) -> None:
    ignored = samples[0]
    write_mask(ignored.mask, np.full((48, 64), IGNORE_INDEX, np.uint8))
    with pytest.raises(UserError, match="every pixel of the test images is void"):
        score(model, [ignored])
    assert score(model, samples[:2]).scores()["images"] == 2


def test_objects_are_counted_by_the_area_of_their_annotation() -> None:
    ground_truth, prediction = np.zeros((2, 200, 200), np.uint8)
    small, medium = rectangle(1, 1, 0, 0, 31, 33), rectangle(2, 2, 50, 0, 32, 32)
    large = rectangle(3, 1, 100, 100, 96, 96)
    ground_truth[0:33, 0:31], ground_truth[0:32, 50:82], ground_truth[100:196, 100:196] = 1, 2, 1
    ground_truth[100:196, 148:196] = 2  # another object covers half of the large one
    prediction[0:16, 0:31] = 1  # less than half of the small one
    prediction[0:16, 50:82] = 2  # exactly half of the medium one
    prediction[100:196, 100:148] = 1  # all that is visible of the large one
    sizes = summarize_objects(count_objects([small, medium, large], ground_truth, prediction))
    assert sizes["small"]["objects"] == sizes["medium"]["objects"] == 1
    assert [sizes[size]["objects_found"] for size in sizes] == [0, 1, 1]
    assert sizes["small"]["recall"] == round(16 / 33, 6)
    assert sizes["large"]["pixels"] == 96 * 48


def test_hidden_objects_and_crowds_do_not_count() -> None:
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
    """An evaluation in which of 10 pixels of each of three classes so many were right; the others
    went to the background, or from it to the first class. No pixels where the number is -1."""
    confusions = np.zeros((len(samples), 3, 3), np.int64)
    for confusion, row in zip(confusions, hits, strict=True):
        for label, right in enumerate(row):
            if right >= 0:
                confusion[label, label] = right
                confusion[label, 0 if label else 1] += 10 - right
    empty = np.zeros((len(samples), 3, 4), np.int64)
    counts = confusions, empty[..., :2], empty, np.ones((1, 1, 3))
    return Evaluation(samples, CARD.classes, *counts, [""] * len(samples), 1.0)


def test_examples_are_best_median_worst_and_a_typical_one_of_each_class(
    samples: list[Sample],
) -> None:
    hits = [[10, 9, -1], [9, -1, 8], [10, 10, 10], [2, 3, 1], [8, 7, 5]]
    evaluation = evaluation_of(samples, hits)
    scores = evaluation.image_scores()
    chosen = {example.name: example.index for example in choose_examples(evaluation, 8)}
    assert scores[chosen["1_best"]] == max(scores)
    assert scores[chosen["2_median"]] == sorted(scores)[2]
    assert scores[chosen["3_worst"]] == min(scores)
    ious = iou_scores(evaluation.confusions)
    for name, label in (("4_red", 1), ("5_blue", 2)):
        if name in chosen:
            assert ious[chosen[name], label] > 0
    assert len(set(chosen.values())) == len(chosen)
    assert [e.name for e in choose_examples(evaluation, 2)] == ["1_best", "3_worst"]


def test_examples_are_pictures_and_panels_named_by_reason(
    tmp_path: Path, samples: list[Sample], evaluation: Evaluation, model: SegmentationNetwork
) -> None:
    pictures, panels = tmp_path / "examples", tmp_path / "panels"
    pictures.mkdir()
    panels.mkdir()
    chosen = choose_examples(evaluation, 3)
    listed = write_examples(pictures, panels, evaluation, chosen, model, CARD, batch_size=2)
    names = ["1_best", "2_median", "3_worst"]
    assert sorted(path.stem for path in pictures.glob("*.png")) == names
    assert [example["name"] for example in listed] == names
    views = ("photo", "truth", "prediction", "errors")
    assert {path.name for path in panels.iterdir()} == {
        f"{n}_{v}.jpg" for n in names for v in views
    }
    # The pixels that the errors panel colours are those that the confusion matrix counts as wrong.
    best = chosen[0].index
    wrong = 1 - np.trace(evaluation.confusions[best]) / evaluation.confusions[best].sum()
    panel = np.asarray(Image.open(panels / "1_best_errors.jpg").convert("HSV"), float)
    assert (panel[..., 1] > 90).mean() == pytest.approx(wrong, abs=0.03)


def test_the_plots_hold_what_was_counted(tmp_path: Path, samples: list[Sample]) -> None:
    evaluation = evaluation_of(samples, [[10, 5, -1]] * 5)
    write_plots(tmp_path, evaluation)

    def rows(name: str) -> list[dict[str, str]]:
        with (tmp_path / name).open(newline="") as file:
            return list(csv.DictReader(file))

    confusion = {(row["truth"], row["prediction"]): row for row in rows("confusion.csv")}
    assert confusion["red", "background"]["share"] == "0.5"
    assert confusion["red", "background"]["pixels"] == "25"
    assert confusion["blue", "blue"]["share"] == "0.0"
    assert [row["iou"] for row in rows("iou.csv")] == ["0.666667", "0.5", ""]
    images = rows("images.csv")
    assert [row["share"] for row in images] == ["0.2", "0.4", "0.6", "0.8", "1.0"]
    assert {row["miou"] for row in images} == {"0.5833"}
    assert rows("reliability.csv") == [{"confidence": "1.0", "accuracy": "1.0", "pixels": "1"}]


def test_no_title_of_a_plot_ends_a_string_in_the_script_of_dvcs_page() -> None:
    """DVC puts titles between apostrophes unescaped: with one inside, the plot stays blank."""
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    plots = [plot for stage in pipeline["stages"].values() for plot in stage.get("plots", [])]
    titles = [props.get("title", path) for plot in plots for path, props in plot.items()]
    assert len(titles) >= 5
    assert not [title for title in titles if "'" in title]


def test_an_overlay_colors_labels_and_leaves_background_clear() -> None:
    photo = np.full((20, 20, 3), 100, np.uint8)
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 2
    overlay = overlay_labels(photo, labels, opacity=0.5)
    assert (overlay[labels == 0] == 100).all()
    assert (overlay[5, 5] == PALETTE[2]).all()
    assert (overlay[10, 10] == np.round((100 + PALETTE[2].astype(float)) / 2)).all()


def test_errors_are_colored_by_kind_and_void_is_no_error() -> None:
    ground_truth = np.array([[0, 1, 0, 1, IGNORE_INDEX, 2]], np.uint8)
    prediction = np.array([[0, 0, 1, 2, 1, 2]], np.uint8)
    errors = overlay_errors(np.full((1, 6, 3), 100, np.uint8), ground_truth, prediction)
    missed, false_alarm, wrong_class = ERRORS.values()
    gray = (177, 177, 177)
    expected = [gray, missed, false_alarm, wrong_class, gray, gray]
    assert [tuple(pixel) for pixel in errors[0].tolist()] == expected


@pytest.mark.parametrize(("height", "width"), [(60, 80), (80, 20), (20, 300), (1, 1)])
def test_an_example_shows_four_panels_and_a_legend_whatever_the_photos_shape(
    height: int, width: int
) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    ground_truth = np.zeros((height, width), np.uint8)
    names = ["background", *(f"class number {label}" for label in range(1, 12))]
    prediction = ground_truth + np.arange(width, dtype=np.uint8) % 11 + 1
    page = draw_example(photo, ground_truth, prediction, names, "caption")
    assert page.width <= 4 * 2 * 240 + 5 * 8
    pixels = np.asarray(page).reshape(-1, 3)
    for label in np.unique(prediction):
        assert (pixels == PALETTE[label]).all(axis=1).sum() > 100  # a swatch of the legend


def test_a_legend_has_letters_of_other_scripts_and_numbers_for_those_no_font_has() -> None:
    photo, labels = np.zeros((40, 60, 3), np.uint8), np.ones((40, 60), np.uint8)

    def page(name: str) -> bytes:
        return draw_example(photo, labels, labels, ["background", name], "é").tobytes()

    assert page("жук") != page("зуб") != page("boxes")
    assert page("牛") == page("class 1")


def test_a_random_network_is_scored_like_any_other(evaluation: Evaluation) -> None:
    scores, details = evaluation.scores(), evaluation.details()
    assert scores["miou_interval"]["low"] <= scores["miou"] <= scores["miou_interval"]["high"]
    assert scores["iou"] == {name: row["iou"] for name, row in details["classes"].items()}
    assert details["classes"]["red"]["images"] == 5
    assert sum(row["pixels"] for row in details["classes"].values()) == evaluation.confusion.sum()


def test_confusion_is_of_one_image_each(samples: list[Sample], model: SegmentationNetwork) -> None:
    predictions = predict_with_confidence(model, CARD, samples, batch_size=2, workers=0, device=CPU)
    evaluation = score(model, samples)
    for found in predictions:
        expected = count_confusion(found.ground_truth.numpy(), found.labels.numpy(), 3)
        assert evaluation.confusions[found.index].tolist() == expected.tolist()
