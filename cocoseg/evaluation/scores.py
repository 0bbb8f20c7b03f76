"""Scoring a model on the test images.

Everything is counted image by image, so that any sum over images is made of the same whole numbers
whatever the batches were.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cocoseg.coco.instances import Annotation
from cocoseg.core.errors import UserError
from cocoseg.core.labels import write_mask
from cocoseg.core.values import rounded
from cocoseg.evaluation.boundary import count_boundaries
from cocoseg.evaluation.calibration import calibration_error, count_confidence
from cocoseg.evaluation.label_errors import Finding, LabelError, find, rank_label_errors
from cocoseg.evaluation.object_recall import count_objects, summarize_objects
from cocoseg.evaluation.statistics import (
    ImageCounts,
    draw_images,
    interval_95,
    mean_of_defined,
    weighted_ious,
)
from cocoseg.inference.backends import Network
from cocoseg.inference.batches import SINGLE_VIEW, Views, predict_samples
from cocoseg.inference.confusion import (
    Confusion,
    count_confusion,
    dice_scores,
    iou_scores,
    mean_iou,
    precision_scores,
    ratio,
    recall_scores,
    summarize_scores,
)
from cocoseg.inference.dataset import Sample


@dataclass
class Evaluation:
    """What was counted on each pair, in the order of the pairs: arrays (pairs, ...).

    `confusions` (classes, classes), `boundaries` (classes, 2) of `count_boundaries`, `objects`
    (sizes, 4) of `count_objects`, `confidences` (bins, 3) of `count_confidence`; `truths` are
    hashes of the true labels, `findings` what the network makes of the annotations.
    """

    samples: Sequence[Sample]
    classes: Sequence[str]
    confusions: NDArray[np.int64]
    boundaries: NDArray[np.int64]
    objects: NDArray[np.int64]
    confidences: NDArray[np.float64]
    ground_truths: Sequence[str]
    images_per_second: float
    findings: Sequence[Sequence[Finding]] = ()

    @property
    def confusion(self) -> Confusion:
        """The confusion matrix over all images."""
        total: Confusion = self.confusions.sum(axis=0)
        return total

    @cached_property
    def resampled_ious(self) -> NDArray[np.float64]:
        """The IoU of each class (draws, classes) over images drawn again with replacement."""
        return weighted_ious(self.confusions, draw_images(len(self.samples)))

    def image_scores(self) -> list[float]:
        """The mean IoU of each image, over the classes in its truth or its prediction."""
        return [mean_iou(confusion) for confusion in self.confusions]

    def image_counts(self) -> ImageCounts:
        """The content of `metrics/test_images.json`: what comparisons of runs are made from."""
        stems = [sample.image.stem for sample in self.samples]
        return ImageCounts(
            classes=list(self.classes),
            confusions=dict(zip(stems, self.confusions.tolist(), strict=True)),
            ground_truths=dict(zip(stems, self.ground_truths, strict=True)),
        )

    def label_errors(self, ids: Mapping[str, int]) -> list[LabelError]:
        """The rows of `metrics/suspects.csv`; `ids` are the images' ids by stem."""
        images = [(ids[sample.image.stem], sample.image.name) for sample in self.samples]
        return rank_label_errors(images, self.findings, self.classes)

    def scores(self) -> dict[str, Any]:
        """The content of `metrics/test.json`: what is worth a column in a table of runs."""
        low, high = interval_95(mean_of_defined(self.resampled_ious))
        scores = summarize_scores(self.confusion, self.classes)
        return {
            "miou": scores["miou"],
            "miou_interval": {"low": low, "high": high},
            "boundary_miou": rounded(float(mean_of_defined(self._boundary_ious()))),
            **scores,
            "images": len(self.samples),
        }

    def details(self) -> dict[str, Any]:
        """The content of `metrics/test_details.json`: what stands behind the scores."""
        confusion = self.confusion
        columns = {
            "iou": iou_scores(confusion),
            "dice": dice_scores(confusion),
            "precision": precision_scores(confusion),
            "recall": recall_scores(confusion),
            "boundary_iou": self._boundary_ious(),
        }
        intervals = [interval_95(samples) for samples in self.resampled_ious.T]
        pixels = self.confusions.sum(axis=2)
        return {
            "classes": {
                name: {
                    **{column: rounded(values[label]) for column, values in columns.items()},
                    "iou_interval": dict(zip(("low", "high"), intervals[label], strict=True)),
                    "images": int((pixels[:, label] > 0).sum()),
                    "pixels": int(pixels[:, label].sum()),
                }
                for label, name in enumerate(self.classes)
            },
            "sizes": summarize_objects(self.objects.sum(axis=0)),
            "calibration_error": rounded(calibration_error(self.confidences.sum(axis=0))),
        }

    def _boundary_ious(self) -> NDArray[np.float64]:
        intersections, unions = self.boundaries.sum(axis=0).T
        return ratio(intersections, unions)


def evaluate(
    network: Network,
    samples: Sequence[Sample],
    objects: Mapping[str, Sequence[Annotation]],
    *,
    batch_size: int,
    workers: int,
    views: Views = SINGLE_VIEW,
    predictions: Path | None = None,
) -> Evaluation:
    """Predict every pair at its original resolution and count.

    `objects` are those of each image's stem, their category ids labels; `scales`, `flip`
    and `tiles` are those of `predict_with_confidence`. The predicted label maps are written into
    the folder `predictions`, if given. Raises UserError without any pair, or any pixel to score.
    """
    if not samples:
        raise UserError("split.ratios.test: the split has no images, there is nothing to score")
    started = time.perf_counter()
    classes = len(network.card.classes)
    counts: dict[int, tuple[NDArray[Any], ...]] = {}
    ground_truths = [""] * len(samples)
    findings: list[Sequence[Finding]] = [()] * len(samples)
    predicted_samples = predict_samples(
        network,
        samples,
        batch_size=batch_size,
        workers=workers,
        views=views,
    )
    for found in tqdm(predicted_samples, total=len(samples), unit="image", disable=None):
        ground_truth, prediction = found.ground_truth.numpy(), found.labels.numpy()
        stem = samples[found.index].image.stem
        ground_truths[found.index] = hashlib.blake2b(
            ground_truth.tobytes(), digest_size=8
        ).hexdigest()
        if predictions:
            write_mask(predictions / f"{stem}.png", prediction)
        findings[found.index] = find(
            objects[stem], ground_truth, prediction, found.probabilities.cpu().numpy()
        )
        counts[found.index] = (
            count_confusion(ground_truth, prediction, classes),
            count_boundaries(ground_truth, prediction, classes),
            count_objects(objects[stem], ground_truth, prediction),
            count_confidence(ground_truth, prediction, found.confidence.numpy()),
        )
    rate = round(len(samples) / (time.perf_counter() - started), 2)
    in_order = zip(*(counts[index] for index in range(len(samples))), strict=True)
    confusions, boundaries, of_objects, confidences = map(np.stack, in_order)
    if not confusions.any():
        raise UserError("every pixel of the test images is void: see mask.crowd and mask.overlap")
    return Evaluation(
        samples,
        network.card.classes,
        confusions,
        boundaries,
        of_objects,
        confidences,
        ground_truths,
        rate,
        findings,
    )
