"""What a training run reports: the metrics of each epoch and a few predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict

from cocoseg.core.drawing import RGBImage
from cocoseg.core.labels import Labels
from cocoseg.inference.confusion import Scores


class EpochMetrics(TypedDict):
    """The metrics of one epoch.

    Attributes:
        loss: the mean training loss.
        lr: the learning rate of the heads in the last step.
        val: the validation scores of the EMA weights.
    """

    loss: float
    lr: float
    val: Scores


@dataclass(frozen=True)
class ValidationPrediction:
    """A validation image, uint8 (H, W, 3), with its labels and the predicted ones, uint8 (H, W)."""

    image: RGBImage
    ground_truth: Labels
    prediction: Labels


class TrainingListener(Protocol):
    """Receives the progress of a training run; `tracking.Tracker` is one."""

    def log_epoch(self, epoch: int, metrics: EpochMetrics, *, replayed: bool = False) -> None:
        """Called after each epoch.

        Args:
            epoch: the number of the epoch, from 0.
            metrics: its metrics.
            replayed: whether the epoch was trained before an interruption. A resumed run reports
                these epochs first.
        """

    def log_predictions(self, epoch: int, predictions: Sequence[ValidationPrediction]) -> None:
        """Called before `log_epoch` of every fifth epoch, in process 0 only."""
