"""Time and peak memory of `cocoseg predict` on images of 640x480, compared with its network alone.

The network alone computes the logits of images that are in memory and resized. The start-up is the
time of `cocoseg predict` for one image, and is subtracted. Both run alternately. On a machine with
other work, compare CPU seconds. Requires the model of a finished run.

    python -m benchmarks.predict --counts 300 3000
"""

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import machine, run_cocoseg
from cocoseg.core.images import read_rgb
from cocoseg.inference.backends import TorchNetwork
from cocoseg.inference.dataset import resize_shorter_side
from cocoseg.models.networks import ModelCard, SegmentationNetwork, coarse_size
from cocoseg.models.weights import load_model, save_model

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("models/model.safetensors"))
    parser.add_argument("--sizes", nargs="+", type=int, default=[192, 480], help="input sizes")
    parser.add_argument("--counts", nargs="+", type=int, default=[300])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--options", nargs="*", default=[], help="such as no-overlay")
    options = parser.parse_args()
    print(machine("torch", "pillow"), flush=True)
    extra = [f"--{name}" for name in options.options]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        images = draw_images(directory / "images", max(options.counts))
        model, card = load_model(options.model)
        for size in options.sizes:
            sized = dataclasses.replace(card, size=size)
            file = directory / "model.safetensors"
            save_model(file, model, sized)
            for count in options.counts:
                shared = ["--model", file, "--out", directory / "out", "--device", "cpu"]
                shared += ["--batch-size", BATCH, *extra]
                rounds = []
                for _ in range(options.rounds):
                    start_up = run_cocoseg(["predict", images[0], *shared])
                    whole = run_cocoseg(["predict", *images[:count], *shared])
                    rounds.append((start_up, whole, run_network(model, sized, images, count)))
                report(f"size {size}, {count} images", rounds)


Figures = tuple[float, float, int]
"""Seconds, CPU seconds, peak memory in MiB."""


def report(title: str, rounds: list[tuple[Figures, Figures, Figures]]) -> None:
    ratios = [
        [(whole[i] - start_up[i]) / network[i] for start_up, whole, network in rounds]
        for i in (0, 1)
    ]
    start_up, whole, network = (
        [statistics.median(figures) for figures in zip(*runs, strict=True)]
        for runs in zip(*rounds, strict=True)
    )
    print(
        f"{title}: {whole[0]:.1f} s, start-up {start_up[0]:.1f} s, network {network[0]:.1f} s, "
        f"ratio {statistics.median(ratios[0]):.2f} ({', '.join(f'{r:.2f}' for r in ratios[0])}); "
        f"CPU {whole[1]:.1f}, {start_up[1]:.1f}, {network[1]:.1f} s, "
        f"ratio {statistics.median(ratios[1]):.2f}; peak {whole[2]:.0f} MiB",
        flush=True,
    )


def draw_images(directory: Path, count: int) -> list[Path]:
    """Write smooth random colors with noise, which are JPEGs of the size of photographs."""
    directory.mkdir()
    random = np.random.default_rng(0)
    paths = [directory / f"{number:05}.jpg" for number in range(count)]
    for path in paths:
        coarse = random.integers(0, 256, (9, 12, 3)).astype(np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((640, 480)), np.int16)
        noisy = smooth + random.integers(-12, 13, smooth.shape, np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return paths


def run_network(
    model: SegmentationNetwork, card: ModelCard, images: list[Path], count: int
) -> Figures:
    network = TorchNetwork(model, card, torch.device("cpu"))
    batch = torch.stack(
        [
            resize_shorter_side(torch.from_numpy(read_rgb(path)).permute(2, 0, 1), card.size)
            for path in images[:BATCH]
        ]
    )
    network(batch, coarse_size(card, batch))
    started, cpu = time.perf_counter(), os.times()
    for first in range(0, count, BATCH):
        part = batch[: count - first]
        network(part, coarse_size(card, part))
    used = os.times()
    return time.perf_counter() - started, used.user + used.system - cpu.user - cpu.system, 0


if __name__ == "__main__":
    main()
