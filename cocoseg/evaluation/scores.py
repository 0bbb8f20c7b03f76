"""Scoring a model on the images of a split.

    result = evaluate(network, samples, objects, batch_size=8, workers=4)
    result.scores()["miou"]

Counts are integers per image, so their sums do not depend on the batches.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from cocoseg.coco.instances import Annotation
from cocoseg.core.errors import UserError
from cocoseg.core.labels import write_mask
from cocoseg.core.progress import show_progress
from cocoseg.core.values import rounded
from cocoseg.evaluation.boundary import count_boundaries
from cocoseg.evaluation.calibration import calibration_error, count_confidence
from cocoseg.evaluation.label_errors import Finding, LabelError, find, rank_label_errors
from cocoseg.evaluation.object_recall import ObjectRecall, count_objects, summarize_objects
from cocoseg.evaluation.statistics import (
    ImageCounts,
    Interval,
    class_counts,
    iou_intervals,
    mean_of_defined,
    miou_interval,
)
from cocoseg.inference.backends import Network
from cocoseg.inference.batches import SINGLE_VIEW, SamplePrediction, Views, predict_samples
from cocoseg.inference.confusion import (
    Confusion,
    Scores,
    count_confusion,
    dice_scores,
    iou_scores,
    mean_of_defined_ious,
    precision_scores,
    ratio,
    recall_scores,
    summarize_scores,
)
from cocoseg.inference.dataset import Sample


class EmptyImageScores(TypedDict):
    """Scores of the images whose ground truth shows no class but the background.

    Attributes:
        images: their number.
        false_alarms: the fraction of them in which the model predicts a class.
        false_pixels: the fraction of their pixels that it predicts as a class.
    """

    images: int
    false_alarms: float
    false_pixels: float


class EvaluationScores(Scores):
    """The content of `metrics/val.json` and `metrics/test.json`.

    Attributes:
        miou_interval: the 95% interval of the mean IoU.
        boundary_miou: the mean boundary IoU over the classes that occur.
        images: the number of images.
        empty_images: the scores of images without objects, if there are any.
    """

    miou_interval: Interval
    boundary_miou: float | None
    images: int
    empty_images: NotRequired[EmptyImageScores]


class ClassDetails(TypedDict):
    """The scores of one class; None where a score is undefined.

    Attributes:
        iou_interval: the 95% interval of the IoU.
        images: the number of images that show the class.
        pixels: the number of its true pixels.
    """

    iou: float | None
    dice: float | None
    precision: float | None
    recall: float | None
    boundary_iou: float | None
    iou_interval: Interval
    images: int
    pixels: int


class EvaluationDetails(TypedDict):
    """The content of `metrics/test_details.json`, except its examples.

    Attributes:
        classes: the scores by class.
        sizes: the recall by size of the objects.
        calibration_error: the expected calibration error.
    """

    classes: dict[str, ClassDetails]
    sizes: dict[str, ObjectRecall]
    calibration_error: float | None


@dataclass
class Evaluation:
    """The counts of each image, and the scores computed from them.

    Attributes:
        samples: the images.
        classes: the class names in label order, background first.
        confusions: confusion matrices, (images, classes, classes).
        boundaries: counts of `count_boundaries`, (images, classes, 2).
        objects: counts of `count_objects`, (images, sizes, 4).
        confidences: counts of `count_confidence`, (images, bins, 3).
        ground_truths: hashes of the true labels.
        images_per_second: the speed of the evaluation.
        findings: what the network predicts for each annotation, by image.
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

    def image_scores(self) -> list[float]:
        """The mean IoU of each image over the classes in its ground truth or prediction."""
        return [mean_of_defined_ious(confusion) for confusion in self.confusions]

    def image_counts(self) -> ImageCounts:
        """The content of `metrics/test_images.json`, an input of `compare_runs`."""
        stems = [sample.image.stem for sample in self.samples]
        return ImageCounts(
            classes=list(self.classes),
            confusions=dict(zip(stems, self.confusions.tolist(), strict=True)),
            ground_truths=dict(zip(stems, self.ground_truths, strict=True)),
        )

    def label_errors(self, ids: Mapping[str, int]) -> list[LabelError]:
        """The rows of `metrics/label_errors.csv`; `ids` are the image IDs by stem."""
        images = [(ids[sample.image.stem], sample.image.name) for sample in self.samples]
        return rank_label_errors(images, self.findings, self.classes)

    def scores(self) -> EvaluationScores:
        """Compute the content of `metrics/test.json` or `metrics/val.json`."""
        scores = summarize_scores(self.confusion, self.classes)
        boundary_miou = rounded(float(mean_of_defined(self._boundary_ious())))
        result: EvaluationScores = {
            "miou": scores["miou"],
            "miou_interval": miou_interval(class_counts(self.confusions)),
            "boundary_miou": None if scores["miou"] is None else boundary_miou,
            "pixel_accuracy": scores["pixel_accuracy"],
            "mean_accuracy": scores["mean_accuracy"],
            "iou": scores["iou"],
            "images": len(self.samples),
        }
        shown = self.confusions.sum(axis=2) > 0
        empty = self.confusions[shown[:, 0] & ~shown[:, 1:].any(axis=1)]
        if len(empty):
            false_pixels = empty[:, 0, 1:].sum(axis=1)
            result["empty_images"] = {
                "images": len(empty),
                "false_alarms": round(float((false_pixels > 0).mean()), 6),
                "false_pixels": round(float(false_pixels.sum() / empty.sum()), 6),
            }
        return result

    def details(self) -> EvaluationDetails:
        """Compute the content of `metrics/test_details.json`, except its examples."""
        confusion = self.confusion
        ious, dices = iou_scores(confusion), dice_scores(confusion)
        precisions, recalls = precision_scores(confusion), recall_scores(confusion)
        boundary_ious = self._boundary_ious()
        intervals = iou_intervals(class_counts(self.confusions))
        pixels = self.confusions.sum(axis=2)
        return {
            "classes": {
                name: {
                    "iou": rounded(ious[label]),
                    "dice": rounded(dices[label]),
                    "precision": rounded(precisions[label]),
                    "recall": rounded(recalls[label]),
                    "boundary_iou": rounded(boundary_ious[label]),
                    "iou_interval": intervals[label],
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
    split: str = "test",
    batch_size: int,
    workers: int,
    views: Views = SINGLE_VIEW,
    predictions: Path | None = None,
) -> Evaluation:
    """Predict and score samples at their original sizes.

    Args:
        network: the network.
        samples: the images of the split.
        objects: the annotations by image stem, without crowd regions. Their category IDs are
            labels.
        split: the name of the split, for error messages.
        batch_size: the number of images, or of tiles of one image, in a batch.
        workers: the number of processes that load images.
        views: the views of each image whose probabilities are averaged.
        predictions: a directory for the predicted masks, `STEM.png`.

    Returns:
        The counts of each image.

    Raises:
        UserError: the list of samples is empty, or all pixels are ignored.
    """
    if not samples:
        raise UserError(f"split.ratios.{split}: the split has no images; evaluation requires some")
    started = time.perf_counter()
    classes = len(network.card.classes)
    results: dict[int, _ImageResult] = {}
    predicted = predict_samples(
        network, samples, batch_size=batch_size, workers=workers, views=views
    )
    for found in show_progress(predicted, "evaluation", len(samples)):
        stem = samples[found.index].image.stem
        results[found.index] = _count(found, objects[stem], classes)
        if predictions:
            write_mask(predictions / f"{stem}.png", found.labels.numpy())
    rate = round(len(samples) / (time.perf_counter() - started), 2)
    in_order = [results[index] for index in range(len(samples))]
    counts = [np.stack(column) for column in zip(*(r.counts for r in in_order), strict=True)]
    confusions, boundaries, object_counts, confidences = counts
    if not confusions.any():
        raise UserError(
            f"all pixels of the {split} images are ignored: check mask.crowd and mask.overlap"
        )
    return Evaluation(
        samples,
        network.card.classes,
        confusions,
        boundaries,
        object_counts,
        confidences,
        ground_truths=[result.ground_truth for result in in_order],
        images_per_second=rate,
        findings=[result.findings for result in in_order],
    )


class _ImageResult(NamedTuple):
    counts: tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
    ground_truth: str
    findings: Sequence[Finding]


def _count(found: SamplePrediction, objects: Sequence[Annotation], classes: int) -> _ImageResult:
    """Everything that `Evaluation` has of one image."""
    ground_truth, prediction = found.ground_truth.numpy(), found.labels.numpy()
    return _ImageResult(
        (
            count_confusion(ground_truth, prediction, classes),
            count_boundaries(ground_truth, prediction, classes),
            count_objects(objects, ground_truth, prediction),
            count_confidence(ground_truth, prediction, found.confidence.numpy()),
        ),
        hashlib.blake2b(ground_truth.tobytes(), digest_size=8).hexdigest(),
        find(objects, ground_truth, prediction, found.probabilities.cpu().numpy()),
    )
