"""What DVC plots of an evaluation, as CSV files; `dvc.yaml` says how each is drawn."""

from pathlib import Path
from typing import Any

from cocoseg.common.files import write_csv
from cocoseg.network.confusion import ratio
from cocoseg.scoring.calibration import reliability_rows
from cocoseg.scoring.evaluation import Evaluation


def write_plots(folder: Path, evaluation: Evaluation) -> None:
    """Write confusion.csv, iou.csv, images.csv and reliability.csv."""
    write_csv(folder / "confusion.csv", confusion_rows(evaluation))
    write_csv(folder / "iou.csv", _iou_rows(evaluation))
    write_csv(folder / "images.csv", image_rows(evaluation))
    write_csv(folder / "reliability.csv", reliability_rows(evaluation.confidences.sum(axis=0)))


def confusion_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The share of each class's pixels that went to each class; 0 for a class without pixels."""
    confusion = evaluation.confusion
    shares = ratio(confusion, confusion.sum(axis=1, keepdims=True).repeat(len(confusion), axis=1))
    return [
        {
            "truth": truth,
            "prediction": prediction,
            "share": round(float(share), 4) if pixels else 0.0,
            "pixels": int(pixels),
        }
        for truth, row, row_shares in zip(evaluation.classes, confusion, shares, strict=True)
        for prediction, pixels, share in zip(evaluation.classes, row, row_shares, strict=True)
    ]


def image_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Every image's own mean IoU, the worst first; `share` of the images is no better than it."""
    scored = sorted(
        zip(evaluation.image_scores(), (pair.image.stem for pair in evaluation.pairs), strict=True)
    )
    return [
        {"share": round(place / len(scored), 4), "miou": round(score, 4), "image": stem}
        for place, (score, stem) in enumerate(scored, start=1)
    ]


def _iou_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    classes = evaluation.details()["classes"]
    return [
        {"class": name, "iou": scores["iou"], "boundary_iou": scores["boundary_iou"]}
        for name, scores in classes.items()
    ]
