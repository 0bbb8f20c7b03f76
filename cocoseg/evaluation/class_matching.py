"""Scoring any model on any data, with classes matched by name.

    scores = score_by_class_name(network, samples, ["person", "car"], batch_size=8, workers=4)
    scores["miou"], scores["unknown_to_model"], scores["unknown_to_data"]

The ground truth stays as it is. A class that only one side has is treated as follows:

- Unknown to the data: the prediction counts as background, because the data labels such objects as
  background.
- Unknown to the model: the class has no IoU and is left out of the means. Its pixels still count,
  and each is an error: of the pixel accuracy, and of the IoU of the class that is predicted there.

If both sides have the same classes, in any order, the scores equal those of the evaluate stage.
"""

from collections.abc import Sequence

import numpy as np

from cocoseg.core.errors import UserError
from cocoseg.core.progress import show_progress
from cocoseg.core.values import rounded
from cocoseg.evaluation.statistics import (
    Interval,
    class_counts,
    mean_of_defined,
    miou_interval,
)
from cocoseg.inference.backends import Network
from cocoseg.inference.batches import SINGLE_VIEW, Views, predict_samples
from cocoseg.inference.confusion import Scores, count_confusion, iou_scores, recall_scores
from cocoseg.inference.dataset import Sample


class MatchedScores(Scores):
    """Scores over the classes that the model and the data have in common.

    Attributes:
        miou_interval: the 95% interval of the mean IoU.
        images: the number of images.
        unknown_to_model: the classes that only the data has, in label order.
        unknown_to_data: the classes that only the model has, in label order.
    """

    miou_interval: Interval
    images: int
    unknown_to_model: list[str]
    unknown_to_data: list[str]


def score_by_class_name(
    network: Network,
    samples: Sequence[Sample],
    classes: Sequence[str],
    *,
    batch_size: int,
    workers: int,
    views: Views = SINGLE_VIEW,
) -> MatchedScores:
    """Predict samples at their original sizes and score the classes that both sides have.

    Args:
        network: the network.
        samples: the images and their masks.
        classes: the class names of the masks' labels 1, 2, …, without the background.
        batch_size: the number of images, or of tiles of one image, in a batch.
        workers: the number of processes that load images.
        views: the views of each image whose probabilities are averaged.

    Raises:
        UserError: `samples` is empty, all pixels are ignored, or no class is common.
    """
    ours, theirs = ["background", *classes], network.card.classes
    known = [label for label, name in enumerate(ours) if name in theirs]
    if len(known) < 2:
        raise UserError(
            "the model and the data have no class in common: the model has "
            f"{', '.join(theirs[1:])}; the data has {', '.join(classes)}; filter.classes can "
            "rename the classes of the data"
        )
    if not samples:
        raise UserError("the split has no images to score: choose another with --split")
    label_of = np.array([ours.index(name) if name in ours else 0 for name in theirs])
    confusions = np.zeros((len(samples), len(ours), len(ours)), np.int64)
    predicted = predict_samples(
        network, samples, batch_size=batch_size, workers=workers, views=views
    )
    for found in show_progress(predicted, "evaluation", len(samples)):
        labels = label_of[found.labels.numpy()]
        confusions[found.index] = count_confusion(found.ground_truth.numpy(), labels, len(ours))
    if not confusions.any():
        raise UserError("all pixels of the images are ignored: check mask.crowd and mask.overlap")
    total = confusions.sum(axis=0)
    ious = iou_scores(total)[known]
    shown = total[known][1:].any()
    recalls = recall_scores(total)[known]
    return {
        "miou": rounded(float(mean_of_defined(ious))) if shown else None,
        "miou_interval": miou_interval(class_counts(confusions, known)),
        "pixel_accuracy": round(float(np.trace(total) / total.sum()), 6),
        "mean_accuracy": rounded(float(mean_of_defined(recalls))) if shown else None,
        "iou": {ours[label]: rounded(iou) for label, iou in zip(known, ious, strict=True)},
        "images": len(samples),
        "unknown_to_model": [name for name in ours if name not in theirs],
        "unknown_to_data": [name for name in theirs if name not in ours],
    }
