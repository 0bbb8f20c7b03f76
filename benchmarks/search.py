"""The best of a search against the preset on three new seeds: by Optuna, and by random draws.

Runs both searches on the built-in sample in a clone of this repository, then trains the preset and
the best of each search on three new seeds, and compares them on the test images. All trainings have
the same number of epochs; pruned trials have fewer.

    python -m benchmarks.search --trials 20
    python -m benchmarks.search --trials 2 --set train.epochs=1 filter.max_images=60
"""

import argparse
import os
import shlex
import subprocess
import tempfile
import time
from contextlib import chdir
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.sample import set_params
from cocoseg.experiments.search import open_search
from cocoseg.experiments.search_results import commands

ROOT = Path(__file__).resolve().parents[1]
SPACE = """\
train.lr: {low: 0.001, high: 0.03, log: true}
train.warmup: {low: 0.0, high: 0.5}
train.weight_decay: {low: 0.001, high: 0.1, log: true}
train.ema_decay: {low: 0.8, high: 0.99}
train.dice_weight: {low: 0.0, high: 2.0}
train.batch_size: [4, 8, 16]
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    print(machine("torch", "dvc", "optuna"), flush=True)
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name, "clone")
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        set_params(clone, options.set)
        (clone / "space.yaml").write_text(SPACE, encoding="utf-8")
        with chdir(clone):
            run("dvc repro --quiet train")
            run("git add -A")
            identity = "-c user.name=benchmark -c user.email=benchmark@example.org"
            run(f"git {identity} commit --quiet -m benchmark")
            for kind in ("tpe", "random"):
                search(kind, options.trials)
            run("dvc exp run --run-all")
            run("cocoseg compare 'before-*' 'tpe-best-*' 'random-best-*' --split test")


def search(kind: str, trials: int) -> None:
    """Run a search, and queue the commands that confirm it; the preset only once."""
    random = kind == "random"
    started = time.perf_counter()
    run(f"cocoseg search space.yaml --name {kind} --trials {trials}" + " --random" * random)
    seconds = time.perf_counter() - started
    found = open_search(Path("space.yaml"), name=kind, random=random)
    epochs = sum(len(trial.intermediate_values) for trial in found.study.trials)
    print(f"{kind}: {seconds:.0f} s, {epochs} epochs", flush=True)
    _, before, best, *_ = commands(found)
    if not random:
        run(before.replace(f"{kind}-before", "before"))
    run(best)


def run(command: str) -> None:
    """Run a command that must succeed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["WANDB_MODE"] = "disabled"
    subprocess.run(shlex.split(command), env=environment, check=True)


if __name__ == "__main__":
    main()
