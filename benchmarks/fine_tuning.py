"""Add a class to the sample's model: fine-tuned, compared with training from scratch in equal time.

    python -m benchmarks.fine_tuning
    python -m benchmarks.fine_tuning --seeds 0 --epochs 1 --set filter.max_images=100 train.epochs=2

For each seed, a first model is trained without the class `--held-out`. Then two models are trained
with all classes, each for `--epochs` epochs: one from random weights and one from the first model.
`cocoseg compare` scores them on the test images. Test images on which a first model was trained are
counted: they favor the fine-tuned model.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.machine import machine
from benchmarks.sample import ROOT, run, set_params


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--held-out", default="airplane", metavar="CLASS")
    parser.add_argument("--epochs", type=int, default=4, help="of the two compared models")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="in all runs")
    parser.add_argument("--tuned", nargs="*", default=[], metavar="KEY=VALUE", help="fine-tuning")
    options = parser.parse_args()
    print(machine("torch", "dvc"), flush=True)
    with tempfile.TemporaryDirectory() as name:
        run("git", "clone", "--quiet", str(ROOT), "clone", directory=Path(name))
        clone = Path(name, "clone")
        sample = (clone / "params.yaml").read_text(encoding="utf-8")
        classes = yaml.safe_load(sample)["filter"]["classes"]
        known = [name for name in classes if name != options.held_out]
        for seed in options.seeds:
            common = [*options.set, f"train.seed={seed}"]
            train(clone, sample, f"first-{seed}", [*common, f"filter.classes={known}"])
            trained_on = images(clone, "train")
            common += [f"filter.classes={classes}", f"train.epochs={options.epochs}"]
            train(clone, sample, f"scratch-{seed}", common)
            common += [f"train.weights=run:first-{seed}", *options.tuned]
            train(clone, sample, f"tuned-{seed}", common)
            both = images(clone, "test") & trained_on
            print(f"test images on which first-{seed} was trained: {len(both)}", flush=True)
        run("cocoseg", "compare", "scratch-*", "tuned-*", directory=clone)


def train(clone: Path, sample: str, tag: str, changes: list[str]) -> None:
    """Train and score a model with changes of the sample's parameters, and tag its commit."""
    (clone / "params.yaml").write_text(sample, encoding="utf-8")
    set_params(clone, changes)
    run("dvc", "repro", "--quiet", "evaluate", directory=clone)
    author = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@example.org")
    run("git", *author, "commit", "--quiet", "--all", "--message", tag, directory=clone)
    run("git", "tag", tag, directory=clone)
    seconds = read(clone, "metrics/machine/train.json")["seconds"]
    test = read(clone, "metrics/test.json")
    scores = {"mean IoU": test["miou"], **test["iou"]}
    shown = [f"{name} {score:.3f}" for name, score in scores.items() if score is not None]
    print(f"{tag:<10} {seconds:.0f} s of training: {', '.join(shown)}", flush=True)


def read(clone: Path, path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((clone / path).read_text(encoding="utf-8"))
    return content


def images(clone: Path, split: str) -> set[str]:
    return set((clone / f"data/splits/{split}.txt").read_text(encoding="utf-8").split())


if __name__ == "__main__":
    main()
