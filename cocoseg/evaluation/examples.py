"""Test images to look at: which ones, and pictures of what the model does with them; suspects."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cocoseg.core.drawing import draw_example, draw_panels
from cocoseg.core.labels import read_mask
from cocoseg.evaluation.label_errors import LabelError, draw_label_error
from cocoseg.evaluation.scores import Evaluation
from cocoseg.inference.backends import Network
from cocoseg.inference.batches import SINGLE_VIEW, Views, predict_samples
from cocoseg.inference.confusion import iou_scores
from cocoseg.inference.dataset import Sample

PANEL_SIZE = 480
"""The longest side of a single panel in pixels: enough for a column of the report."""


@dataclass(frozen=True)
class Example:
    """The pair number `index` of an evaluation, and why it is shown."""

    index: int
    name: str
    reason: str


def choose_examples(evaluation: Evaluation, count: int) -> list[Example]:
    """At most `count` different images: the best, the worst and the median by mean IoU, then for
    each class, in label order, the one whose IoU of that class is the class's median.

    They are ordered as a reader wants them: best, median, worst, classes.
    """
    scores = evaluation.image_scores()
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    wanted = [
        Example(order[0], "1_best", "best by mean IoU"),
        Example(order[-1], "3_worst", "worst by mean IoU"),
        Example(order[len(order) // 2], "2_median", "median by mean IoU"),
    ]
    ious = iou_scores(evaluation.confusions)
    shown = {example.index for example in wanted}
    for label, name in enumerate(evaluation.classes[1:], start=1):
        with_class = np.flatnonzero(evaluation.confusions[:, label].sum(axis=1) > 0)
        candidates = [index for index in with_class.tolist() if index not in shown]
        if candidates:
            candidates.sort(key=lambda index: (ious[index, label], index))
            index = candidates[len(candidates) // 2]
            shown.add(index)
            slug = re.sub(r"\W+", "_", name)[:40]
            wanted.append(Example(index, f"{label + 3}_{slug}", f"typical {name}"))
    chosen: list[Example] = []
    for example in wanted:
        if example.index not in {other.index for other in chosen}:
            chosen.append(example)
    return sorted(chosen[:count], key=lambda example: int(example.name.split("_")[0]))


def write_examples(
    pictures: Path,
    panels: Path,
    evaluation: Evaluation,
    examples: Sequence[Example],
    network: Network,
    *,
    batch_size: int,
    views: Views = SINGLE_VIEW,
) -> list[dict[str, Any]]:
    """Write each example as one picture, `NAME.png`, and as four panels, `NAME_photo.jpg`, …

    The other arguments are those of the evaluation. Returns what `metrics/test_details.json` says
    about the examples.
    """
    scores = evaluation.image_scores()
    predictions = predict_samples(
        network,
        [evaluation.samples[example.index] for example in examples],
        batch_size=batch_size,
        workers=0,
        views=views,
    )
    for found in predictions:
        example = examples[found.index]
        sample = evaluation.samples[example.index]
        image, _ = sample.read()
        caption = f"{sample.image.name}: mean IoU {scores[example.index]:.3f} ({example.reason})"
        panels_of = image.permute(1, 2, 0).numpy(), found.ground_truth.numpy(), found.labels.numpy()
        draw_example(*panels_of, evaluation.classes, caption).save(pictures / f"{example.name}.png")
        for title, picture in draw_panels(*panels_of).items():
            panel = Image.fromarray(picture)
            panel.thumbnail((PANEL_SIZE, PANEL_SIZE), Image.Resampling.LANCZOS)
            panel.save(
                panels / f"{example.name}_{title.replace(' ', '_')}.jpg", quality=85, optimize=True
            )
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
    """Write the views of each suspect, `suspect_1_photo.jpg` and so on.

    `predictions` is the folder with the predicted label maps of the pairs.
    """
    sample_of = {sample.image.name: sample for sample in samples}
    for number, label_error in enumerate(label_errors, start=1):
        sample = sample_of[label_error.image]
        photo, ground_truth = sample.read()
        prediction = read_mask(predictions / f"{sample.image.stem}.png")
        views = draw_label_error(
            label_error, photo.permute(1, 2, 0).numpy(), ground_truth.numpy(), prediction
        )
        for title, view in views.items():
            view.save(directory / f"label_error_{number}_{title}.jpg", quality=85, optimize=True)
