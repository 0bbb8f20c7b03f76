"""Short training runs on drawn samples."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from cocoseg.inference.dataset import Sample
from cocoseg.models.devices import find_device
from cocoseg.params.train import TrainParams
from cocoseg.training.checkpoint import CheckpointFile
from cocoseg.training.trainer import TrainingResult, train
from tests import ROOT

PRESET = ROOT / "presets/sample.yaml"

DEVICE = find_device(os.environ.get("TEST_DEVICE", "cpu"))
"""`TEST_DEVICE=cuda` asks the same of a GPU, as `python -m benchmarks.gpu` does."""

Run = tuple[TrainingResult, list[Any]]
"""What a training gives, and the figures of each epoch."""


def params(**changes: Any) -> TrainParams:
    preset = yaml.safe_load(PRESET.read_text(encoding="utf-8"))["train"]
    tiny = {"size": 48, "crop": 32, "epochs": 3, "batch_size": 4, "threads": 1}
    whole = {  # every part of it, whatever the sample leaves out
        "architecture": "deeplabv3_mobilenet_v3_large",
        "aux_weight": 0.5,
        "ema_decay": 0.97,
        "warmup": 0.3,
        "color_jitter": 0.3,
    }
    return TrainParams.model_validate({**preset, **tiny, **whole, **changes})


def run(
    samples: list[Sample],
    workers: int = 0,
    after_epoch: Callable[[int], None] = int,
    **changes: Any,
) -> Run:
    """Train on `pairs`, validate on two of them; `after_epoch` gets each epoch's number."""
    checkpoint = CheckpointFile(samples[0].image.parent, "test")
    epochs: list[Mapping[str, Any]] = []

    def report(epoch: int, figures: Mapping[str, Any], again: bool) -> None:
        epochs.append(figures)
        after_epoch(epoch)

    result = train(
        ["red", "blue"],
        samples,
        samples[:2],
        params(**changes),
        device=DEVICE,
        workers=workers,
        checkpoint=checkpoint,
        report_epoch=report,
    )
    checkpoint.remove()
    return result, epochs
