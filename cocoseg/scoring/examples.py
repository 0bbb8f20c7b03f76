"""Test images to look at: which ones, and pictures of what the model does with them; suspects."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cocoseg.annotations.pictures import draw_example, draw_panels
from cocoseg.common.labels import read_label_png
from cocoseg.network.confusion import iou_scores
from cocoseg.network.inference import predict_with_confidence
from cocoseg.network.model import ModelCard, SegmentationNetwork
from cocoseg.network.photos import Pair
from cocoseg.network.tiles import Tiles
from cocoseg.scoring.evaluation import Evaluation
from cocoseg.scoring.suspects import Suspect, draw_suspect

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
    model: SegmentationNetwork,
    card: ModelCard,
    *,
    batch_size: int,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    tiles: Tiles | None = None,
) -> list[dict[str, Any]]:
    """Write each example as one picture, `NAME.png`, and as four panels, `NAME_photo.jpg`, …

    The other arguments are those of the evaluation. Returns what `metrics/test_details.json` says
    about the examples.
    """
    scores = evaluation.image_scores()
    predictions = predict_with_confidence(
        model,
        card,
        [evaluation.pairs[example.index] for example in examples],
        batch_size=batch_size,
        workers=0,
        device=next(model.parameters()).device,
        scales=scales,
        flip=flip,
        tiles=tiles,
    )
    for found in predictions:
        example = examples[found.index]
        pair = evaluation.pairs[example.index]
        image, _ = pair.read()
        caption = f"{pair.image.name}: mean IoU {scores[example.index]:.3f} ({example.reason})"
        views = image.permute(1, 2, 0).numpy(), found.truth.numpy(), found.labels.numpy()
        draw_example(*views, card.classes, caption).save(pictures / f"{example.name}.png")
        for title, picture in draw_panels(*views).items():
            panel = Image.fromarray(picture)
            panel.thumbnail((PANEL_SIZE, PANEL_SIZE), Image.Resampling.LANCZOS)
            panel.save(panels / f"{example.name}_{title}.jpg", quality=85, optimize=True)
    return [
        {
            "name": example.name,
            "image": evaluation.pairs[example.index].image.name,
            "reason": example.reason,
            "miou": round(scores[example.index], 6),
        }
        for example in examples
    ]


def write_gallery(
    folder: Path, suspects: Sequence[Suspect], pairs: Iterable[Pair], predictions: Path
) -> None:
    """Write the views of each suspect, `suspect_1_photo.jpg` and so on.

    `predictions` is the folder with the predicted label maps of the pairs.
    """
    pair_of = {pair.image.name: pair for pair in pairs}
    for number, suspect in enumerate(suspects, start=1):
        pair = pair_of[suspect.image]
        photo, truth = pair.read()
        prediction = read_label_png(predictions / f"{pair.image.stem}.png")
        views = draw_suspect(suspect, photo.permute(1, 2, 0).numpy(), truth.numpy(), prediction)
        for title, view in views.items():
            view.save(folder / f"suspect_{number}_{title}.jpg", quality=85, optimize=True)
