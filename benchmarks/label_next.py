"""Which images to label next: orders by what a network does not know, compared with a random order.

Labels `--images` random images, trains, ranks the other images by several orders, labels as many
again, and trains from the start with all of them, for equal epochs. The scores are of images that
no training has seen. A draw chooses other first images and another seed.

    python -m benchmarks.label_next mirror
    python -m benchmarks.label_next sample    # in the project, after `dvc repro split`

random       no order
uncertainty  the mean entropy of the pixels
coverage     greedily, the classes that have the fewest pixels so far, by the expected pixels
both         the same, but only the entropy of each pixel counts
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student

from benchmarks.machine import machine
from benchmarks.recipe import CLASSES, CPU, ROOT, WEIGHTS, prepare
from cocoseg.core.labels import read_classes, read_mask
from cocoseg.core.seeding import generator
from cocoseg.inference.backends import TorchNetwork
from cocoseg.inference.batches import confusion_of_samples, predict_samples
from cocoseg.inference.confusion import mean_of_defined_ious
from cocoseg.inference.dataset import Sample, read_samples
from cocoseg.params.reader import load_params
from cocoseg.params.train import TrainParams
from cocoseg.training.checkpoint import CheckpointFile
from cocoseg.training.trainer import train

ORDERS = ("random", "uncertainty", "coverage", "both")
PRESETS: dict[str, dict[str, Any]] = {
    "mirror": {"size": 160, "crop": 128, "weights": str(WEIGHTS)},
    "sample": {"size": 128, "crop": 96},
}
EPOCHS = {"mirror": 10, "sample": 16}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", choices=PRESETS)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--results", type=Path, default=Path("label_next.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine("torch"), flush=True)
    results: dict[str, dict[str, float]] = {}
    if options.results.exists():
        results = json.loads(options.results.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        classes, pool, test = data(options.data, Path(name))
        for draw in options.draws:
            scores = one_draw(options, classes, pool, test, draw, Path(name))
            results[f"{options.data} {draw}"] = scores
            options.results.write_text(json.dumps(results, indent=1), encoding="utf-8")
    report(options.data, results)


def data(name: str, directory: Path) -> tuple[Sequence[str], list[Sample], list[Sample]]:
    """The classes, the images to label, and the images to score."""
    if name == "mirror":
        splits = [prepare(directory, split, CLASSES)[1] for split in ("train2017", "val2017")]
        return CLASSES, splits[0], splits[1]
    train_set, val, test = (
        read_samples(Path(f"data/splits/{split}.txt"), Path("data/images"), Path("data/masks"))
        for split in ("train", "val", "test")
    )
    return read_classes(Path("data/classes.json")), train_set, val + test


def one_draw(
    options: argparse.Namespace,
    classes: Sequence[str],
    pool: list[Sample],
    test: list[Sample],
    draw: int,
    directory: Path,
) -> dict[str, float]:
    """The mean IoU of the first model and of the model after each order."""
    count = options.images

    def fit(samples: list[Sample]) -> TorchNetwork:
        checkpoint = CheckpointFile(directory, "run")
        trained = train(
            classes,
            samples,
            samples[::10],
            params(options.data, draw),
            device=CPU,
            workers=0,
            checkpoint=checkpoint,
        )
        checkpoint.remove()  # otherwise the next training would resume from it
        return TorchNetwork(trained.model, trained.card, CPU)

    def score(network: TorchNetwork) -> float:
        return mean_of_defined_ious(confusion_of_samples(network, test, batch_size=4, workers=0))

    shuffled = [pool[i] for i in generator(draw, "label next").permutation(len(pool))]
    labeled, others = shuffled[:count], shuffled[count:]
    first = fit(labeled)
    found = {"first": score(first)}
    pixels = np.zeros(len(classes) + 1)
    for sample in labeled:
        mask = read_mask(sample.mask)
        pixels += np.bincount(mask[mask <= len(classes)], minlength=len(pixels)) / mask.size
    expected, uncertain = predicted(first, others)
    orders = {
        "random": range(count),
        "uncertainty": np.argsort(-uncertain.sum(axis=1))[:count].tolist(),
        "coverage": greedy(pixels, expected, expected, count),
        "both": greedy(pixels, uncertain, expected, count),
    }
    for order in ORDERS:
        found[order] = score(fit(labeled + [others[i] for i in orders[order]]))
        print(f"{options.data} {draw} {order}: {found[order]:.3f}", flush=True)
    return found


def params(name: str, seed: int) -> TrainParams:
    preset = ROOT / "presets" / ("sample.yaml" if name == "sample" else "coco_val2014.yaml")
    changes = {
        **load_params(preset)[TrainParams].model_dump(),
        "architecture": "lraspp_mobilenet_v3_large",
        "epochs": EPOCHS[name],
        "batch_size": 8,
        "threads": 1,
        "seed": seed,
    }
    return TrainParams.model_validate(changes).model_copy(update=PRESETS[name])


def predicted(
    network: TorchNetwork, samples: Sequence[Sample]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The expected fraction of each class in each image, and its part of the entropy."""
    shape = (len(samples), len(network.card.classes))
    expected, uncertain = np.zeros(shape), np.zeros(shape)
    for found in predict_samples(network, samples, batch_size=4, workers=0):
        p = found.probabilities.flatten(1).double()
        entropy = -(p * p.clamp_min(1e-12).log()).sum(dim=0)
        expected[found.index] = p.mean(dim=1).numpy()
        uncertain[found.index] = (p * entropy).mean(dim=1).numpy()
    return expected, uncertain


def greedy(
    pixels: NDArray[np.float64],
    gains: NDArray[np.float64],
    expected: NDArray[np.float64],
    count: int,
) -> list[int]:
    """Choose, one at a time, the image with the largest relative gain summed over the classes."""
    known = pixels + 1e-3
    left, chosen = list(range(len(gains))), []
    for _ in range(count):
        best = max(left, key=lambda i: float(np.log1p(gains[i] / known).sum()))
        left.remove(best)
        chosen.append(best)
        known = known + expected[best]
    return chosen


def report(name: str, results: dict[str, dict[str, float]]) -> None:
    """Print the mean of each order, and its difference from random with a 95% interval."""
    draws = [scores for key, scores in results.items() if key.startswith(f"{name} ")]
    print(f"{name}, {len(draws)} draws: first {mean(d['first'] for d in draws):.3f}")
    for order in ORDERS:
        differences = [scores[order] - scores["random"] for scores in draws]
        line = f"  {order:<12} {mean(scores[order] for scores in draws):.3f}"
        if order != "random" and len(draws) > 1:
            half = student.ppf(0.975, len(draws) - 1) * stdev(differences) / len(draws) ** 0.5
            line += f"   {mean(differences):+.3f} ± {half:.3f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
