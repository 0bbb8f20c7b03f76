"""How much choosing the best epoch on the validation images raises their mean IoU.

Trains on the data of this project with several seeds, and scores each epoch on the validation and
on the test images. The training uses neither, so both can choose the epoch. The mean over both
choices cancels the difference between the images. Run `dvc repro split mask` first.

    python -m benchmarks.best_epoch --seeds 0 1 2
    python -m benchmarks.best_epoch --images 160 --set epochs=12 size=128 crop=96
"""

import argparse
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import yaml

from benchmarks.machine import machine
from cocoseg.core.labels import read_classes
from cocoseg.inference.backends import TorchNetwork
from cocoseg.inference.batches import confusion_of_samples
from cocoseg.inference.confusion import mean_iou
from cocoseg.inference.dataset import Sample, read_samples
from cocoseg.models.networks import ModelCard, build_model
from cocoseg.params.reader import load_params
from cocoseg.params.train import TrainParams
from cocoseg.training.checkpoint import CheckpointFile
from cocoseg.training.trainer import train

CPU = torch.device("cpu")


class ScoredCheckpoints(CheckpointFile):
    """Scores the weights of each epoch on the test images instead of saving them."""

    def prepare(self, card: ModelCard, samples: list[Sample]) -> None:
        self.card, self.samples, self.test = card, samples, []

    def save(self, state: dict[str, Any]) -> None:
        weights = {key.removeprefix("module."): value for key, value in state["ema"].items()}
        weights.pop("n_averaged")
        model = build_model(
            self.card.architecture,
            len(self.card.classes),
            auxiliary=any(key.startswith("aux_classifier.") for key in weights),
            encoder=self.card.encoder,
        )
        model.load_state_dict(weights)
        network = TorchNetwork(model.eval(), self.card, CPU)
        confusion = confusion_of_samples(network, self.samples, batch_size=8, workers=0)
        self.test.append(mean_iou(confusion))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, help="train on this number of images (default: all)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of `train`")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    changes = {key: yaml.safe_load(value) for key, value in (c.split("=") for c in options.set)}
    preset = load_params(Path("params.yaml"))[TrainParams]
    classes = read_classes(Path("data/classes.json"))
    splits = {
        name: read_samples(Path(f"data/splits/{name}.txt"), Path("data/images"), Path("data/masks"))
        for name in ("train", "val", "test")
    }
    print(machine("torch", "torchvision"), flush=True)
    raised = []
    for seed in options.seeds:
        params = TrainParams.model_validate({**preset.model_dump(), **changes, "seed": seed})
        with tempfile.TemporaryDirectory() as directory:
            checkpoint = ScoredCheckpoints(Path(directory), "run")
            card = ModelCard(
                params.architecture,
                ("background", *classes),
                params.size,
                encoder=params.encoder,
            )
            checkpoint.prepare(card, splits["test"])
            history = train(
                classes,
                splits["train"][: options.images],
                splits["val"],
                params,
                device=CPU,
                workers=0,
                checkpoint=checkpoint,
            ).history
        val, test = [metrics["val"]["miou"] or 0.0 for metrics in history], checkpoint.test
        by_val, by_test = val.index(max(val)), test.index(max(test))
        raised.append((val[by_val] - val[by_test] + test[by_test] - test[by_val]) / 2)
        print(
            f"seed {seed}: epoch {by_val + 1}, the best on validation: validation "
            f"{val[by_val]:.3f}, test {test[by_val]:.3f}; epoch {by_test + 1}, the best on test: "
            f"validation {val[by_test]:.3f}, test {test[by_test]:.3f}; raised {raised[-1]:+.4f}",
            flush=True,
        )
    print(f"raised {mean(raised):+.4f}, standard deviation {stdev(raised):.4f}")


if __name__ == "__main__":
    main()
