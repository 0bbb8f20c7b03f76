"""Short training runs on drawn samples."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from cocoseg.inference.dataset import Sample
from cocoseg.models.devices import find_device
from cocoseg.params.train import TrainParams
from cocoseg.training.checkpoint import CheckpointFile
from cocoseg.training.listener import EpochMetrics, ValidationPrediction
from cocoseg.training.trainer import TrainingResult, train
from tests import ROOT

PRESET = ROOT / "presets/sample.yaml"

DEVICE = find_device(os.environ.get("TEST_DEVICE", "cpu"))
"""`TEST_DEVICE=cuda` runs these tests on a GPU, as `python -m benchmarks.gpu` does."""


class Run:
    """The result of a training run and everything that it reported.

    Attributes:
        result: the result, set at the end.
        epochs: the metrics of each epoch.
        replayed: the epochs reported as replayed.
        predictions: the predictions by epoch.
    """

    result: TrainingResult

    def __init__(self, after_epoch: Callable[[int], object]) -> None:
        self.epochs: list[EpochMetrics] = []
        self.replayed: list[int] = []
        self.predictions: dict[int, Sequence[ValidationPrediction]] = {}
        self._after_epoch = after_epoch

    def log_epoch(self, epoch: int, metrics: EpochMetrics, *, replayed: bool = False) -> None:
        assert epoch == len(self.epochs)
        self.epochs.append(metrics)
        if replayed:
            self.replayed.append(epoch)
        self._after_epoch(epoch)

    def log_predictions(self, epoch: int, predictions: Sequence[ValidationPrediction]) -> None:
        self.predictions[epoch] = predictions


def params(**changes: Any) -> TrainParams:
    """A short training of all parts of the loop; `changes` override it."""
    preset = yaml.safe_load(PRESET.read_text(encoding="utf-8"))["train"]
    tiny = {"size": 48, "crop": 32, "epochs": 3, "batch_size": 4, "threads": 1}
    complete = {
        "architecture": "deeplabv3_mobilenet_v3_large",
        "encoder": None,
        "aux_weight": 0.5,
        "ema_decay": 0.97,
        "warmup": 0.3,
        "color_jitter": 0.3,
    }
    return TrainParams.model_validate({**preset, **tiny, **complete, **changes})


def checkpoint_of(samples: Sequence[Sample]) -> CheckpointFile:
    """The checkpoint of `run` on these samples."""
    return CheckpointFile(samples[0].image.parent, "test")


def run(
    samples: list[Sample],
    workers: int = 0,
    after_epoch: Callable[[int], object] = int,
    **changes: Any,
) -> Run:
    """Train on all samples and validate on the first two; `after_epoch` gets each epoch's number.

    The checkpoint remains only if training fails.
    """
    listener = Run(after_epoch)
    listener.result = train(
        ["red", "blue"],
        samples,
        samples[:2],
        params(**changes),
        device=DEVICE,
        workers=workers,
        checkpoint=checkpoint_of(samples),
        listener=listener,
    )
    checkpoint_of(samples).remove()
    return listener
