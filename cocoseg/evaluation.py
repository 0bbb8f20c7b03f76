"""Scoring a model on the test images, and showing what it does with some of them."""

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cocoseg.dataset import Pair
from cocoseg.draw import draw_example
from cocoseg.inference import predict_pairs
from cocoseg.metrics import Confusion, count_confusion, mean_iou, summarize_scores
from cocoseg.model import ModelCard, SegmentationNetwork


@dataclass
class Evaluation:
    """The confusion matrix (classes, classes) of each pair, in the order of the pairs."""

    pairs: Sequence[Pair]
    classes: Sequence[str]
    confusions: list[Confusion]
    images_per_second: float

    @property
    def confusion(self) -> Confusion:
        """The confusion matrix over all images."""
        total: Confusion = np.sum(self.confusions, axis=0)
        return total

    def scores(self) -> dict[str, Any]:
        """The content of `metrics/test.json`."""
        return {**summarize_scores(self.confusion, self.classes), "images": len(self.pairs)}

    def spread_by_score(self, count: int) -> list[int]:
        """Indices of `count` images from the best to the worst by their own mean IoU."""
        order = sorted(range(len(self.pairs)), key=lambda i: -mean_iou(self.confusions[i]))
        places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
        return [order[place] for place in places]


def evaluate(
    model: SegmentationNetwork,
    card: ModelCard,
    pairs: Sequence[Pair],
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Evaluation:
    """Predict every pair at its original resolution and count the pixels."""
    started = time.perf_counter()
    confusions: dict[int, Confusion] = {}
    for index, truth, prediction in predict_pairs(
        model.to(device), card, pairs, batch_size=batch_size, workers=workers, device=device
    ):
        confusions[index] = count_confusion(truth.numpy(), prediction.numpy(), len(card.classes))
    rate = len(pairs) / (time.perf_counter() - started)
    return Evaluation(pairs, card.classes, [confusions[i] for i in range(len(pairs))], rate)


def write_confusion_plot(path: Path, confusion: Confusion, names: Sequence[str]) -> None:
    """Write the share of each class's pixels that went to each class, as CSV for a DVC plot."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["truth", "prediction", "share", "pixels"])
        for truth, row in zip(names, confusion, strict=True):
            total = max(int(row.sum()), 1)
            for prediction, pixels in zip(names, row, strict=True):
                writer.writerow([truth, prediction, round(int(pixels) / total, 4), int(pixels)])


def write_examples(
    folder: Path, evaluation: Evaluation, model: SegmentationNetwork, card: ModelCard, count: int
) -> None:
    """Write photo, truth and prediction of `count` images, best to worst, as PNG files."""
    chosen = evaluation.spread_by_score(count)
    device = next(model.parameters()).device
    predictions = predict_pairs(
        model,
        card,
        [evaluation.pairs[index] for index in chosen],
        batch_size=1,
        workers=0,
        device=device,
    )
    for place, truth, prediction in predictions:
        index = chosen[place]
        pair = evaluation.pairs[index]
        photo, _ = pair.read()
        score = mean_iou(evaluation.confusions[index])
        picture = draw_example(
            photo.permute(1, 2, 0).numpy(),
            truth.numpy(),
            prediction.numpy(),
            card.classes,
            f"{pair.image.stem}, mean IoU {score:.2f}",
        )
        picture.save(folder / f"{place + 1:02d}_{pair.image.stem}.png")
