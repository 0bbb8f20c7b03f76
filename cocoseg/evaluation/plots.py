"""CSV files for `dvc plots`. `dvc.yaml` configures the plots."""

from pathlib import Path
from typing import Any

from cocoseg.core.files import write_csv
from cocoseg.evaluation.calibration import reliability_rows
from cocoseg.evaluation.scores import Evaluation
from cocoseg.inference.confusion import ratio


def write_plots(directory: Path, evaluation: Evaluation) -> None:
    """Write `confusion.csv`, `iou.csv`, `images.csv` and `reliability.csv` into a directory."""
    write_csv(directory / "confusion.csv", _confusion_rows(evaluation))
    write_csv(directory / "iou.csv", _iou_rows(evaluation))
    write_csv(directory / "images.csv", _image_rows(evaluation))
    write_csv(directory / "reliability.csv", reliability_rows(evaluation.confidences.sum(axis=0)))


def _confusion_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The pixels of each class by prediction; `fraction` is of the class, 0 if it has no pixels."""
    confusion = evaluation.confusion
    fractions = ratio(
        confusion, confusion.sum(axis=1, keepdims=True).repeat(len(confusion), axis=1)
    )
    return [
        {
            "ground_truth": ground_truth,
            "prediction": prediction,
            "fraction": round(float(fraction), 4) if pixels else 0.0,
            "pixels": int(pixels),
        }
        for ground_truth, row, row_fractions in zip(
            evaluation.classes, confusion, fractions, strict=True
        )
        for prediction, pixels, fraction in zip(evaluation.classes, row, row_fractions, strict=True)
    ]


def _image_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Images by ascending mean IoU; `fraction` of the images have at most this mean IoU."""
    scored = sorted(
        zip(
            evaluation.image_scores(),
            (sample.image.stem for sample in evaluation.samples),
            strict=True,
        )
    )
    return [
        {"fraction": round(position / len(scored), 4), "miou": round(score, 4), "image": stem}
        for position, (score, stem) in enumerate(scored, start=1)
    ]


def _iou_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    classes = evaluation.details()["classes"]
    return [
        {"class": name, "iou": scores["iou"], "boundary_iou": scores["boundary_iou"]}
        for name, scores in classes.items()
    ]
