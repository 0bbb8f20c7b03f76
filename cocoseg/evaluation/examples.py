"""Example images and drawings of label errors for the report."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from cocoseg.core.drawing import draw_example, draw_panels
from cocoseg.core.labels import read_mask
from cocoseg.core.progress import show_progress
from cocoseg.evaluation.label_errors import LabelError, draw_label_error
from cocoseg.evaluation.scores import Evaluation
from cocoseg.inference.backends import Network
from cocoseg.inference.batches import SINGLE_VIEW, Views, predict_samples
from cocoseg.inference.confusion import iou_scores
from cocoseg.inference.dataset import Sample

PANEL_SIZE = 480
"""The longest side of a panel in pixels, enough for a column of the report."""


@dataclass(frozen=True)
class Example:
    """An example image.

    Attributes:
        index: the index of the sample in the evaluation.
        name: the stem of its files.
        reason: why it is shown.
    """

    index: int
    name: str
    reason: str


class ExampleDetails(TypedDict):
    """An example in `metrics/test_details.json`; `image` is its file name."""

    name: str
    image: str
    reason: str
    miou: float


def choose_examples(evaluation: Evaluation, count: int) -> list[Example]:
    """Choose different images to show.

    By mean IoU, the best image with objects, the worst image and the median come first. Then
    follows the image with the median IoU of each class.

    Args:
        evaluation: the evaluation.
        count: the largest number of examples.

    Returns:
        The examples in the order of the report: best, median, worst, classes by label.
    """
    scores = evaluation.image_scores()
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    # Without objects, a correct prediction shows nothing.
    with_objects = evaluation.confusions[:, 1:].sum(axis=(1, 2)) > 0
    best = next((index for index in order if with_objects[index]), order[0])
    examples = [
        Example(best, "1_best", "best by mean IoU"),
        Example(order[-1], "3_worst", "worst by mean IoU"),
        Example(order[len(order) // 2], "2_median", "median by mean IoU"),
    ]
    ious = iou_scores(evaluation.confusions)
    shown = {example.index for example in examples}
    for label, name in enumerate(evaluation.classes[1:], start=1):
        with_class = np.flatnonzero(evaluation.confusions[:, label].sum(axis=1) > 0)
        candidates = [index for index in with_class.tolist() if index not in shown]
        if candidates:
            candidates.sort(key=lambda index: (ious[index, label], index))
            index = candidates[len(candidates) // 2]
            shown.add(index)
            slug = re.sub(r"\W+", "_", name)[:40]
            examples.append(Example(index, f"{label + 3}_{slug}", f"typical {name}"))
    chosen: list[Example] = []
    for example in examples:
        if example.index not in {other.index for other in chosen}:
            chosen.append(example)
    return sorted(chosen[:count], key=lambda example: int(example.name.split("_")[0]))


def write_examples(
    directory: Path,
    panel_directory: Path,
    evaluation: Evaluation,
    examples: Sequence[Example],
    network: Network,
    *,
    batch_size: int,
    views: Views = SINGLE_VIEW,
) -> list[ExampleDetails]:
    """Draw examples: image, ground truth, prediction and errors.

    Args:
        directory: for one image with all four panels, `NAME.png`.
        panel_directory: for the single panels, `NAME_image.jpg` and so on.
        evaluation: the evaluation.
        examples: the examples.
        network: the network of the evaluation.
        batch_size: the batch size of the evaluation.
        views: the views of the evaluation.

    Returns:
        The examples for `metrics/test_details.json`.
    """
    scores = evaluation.image_scores()
    predictions = predict_samples(
        network,
        [evaluation.samples[example.index] for example in examples],
        batch_size=batch_size,
        workers=0,
        views=views,
    )
    for found in show_progress(predictions, "examples", len(examples)):
        example = examples[found.index]
        sample = evaluation.samples[example.index]
        image, _ = sample.read()
        caption = f"{sample.image.name}: mean IoU {scores[example.index]:.3f} ({example.reason})"
        arrays = image.permute(1, 2, 0).numpy(), found.ground_truth.numpy(), found.labels.numpy()
        draw_example(*arrays, evaluation.classes, caption).save(directory / f"{example.name}.png")
        for title, pixels in draw_panels(*arrays).items():
            panel = Image.fromarray(pixels)
            panel.thumbnail((PANEL_SIZE, PANEL_SIZE), Image.Resampling.LANCZOS)
            name = f"{example.name}_{title.replace(' ', '_')}.jpg"
            panel.save(panel_directory / name, quality=85, optimize=True)
    return [
        {
            "name": example.name,
            "image": evaluation.samples[example.index].image.name,
            "reason": example.reason,
            "miou": round(scores[example.index], 6),
        }
        for example in examples
    ]


def write_gallery(
    directory: Path,
    label_errors: Sequence[LabelError],
    samples: Iterable[Sample],
    predictions: Path,
) -> None:
    """Draw label errors: `label_error_1_image.jpg` and so on.

    Args:
        directory: for the drawings.
        label_errors: the label errors.
        samples: their samples and, possibly, others.
        predictions: the directory with the predicted masks, `STEM.png`.
    """
    sample_of = {sample.image.name: sample for sample in samples}
    for number, label_error in enumerate(label_errors, start=1):
        sample = sample_of[label_error.image]
        image, ground_truth = sample.read()
        prediction = read_mask(predictions / f"{sample.image.stem}.png")
        drawings = draw_label_error(
            label_error, image.permute(1, 2, 0).numpy(), ground_truth.numpy(), prediction
        )
        for title, drawing in drawings.items():
            path = directory / f"label_error_{number}_{title}.jpg"
            drawing.save(path, quality=85, optimize=True)
