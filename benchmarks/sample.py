"""Time and scores of `dvc repro` on the built-in sample, at two revisions.

    python -m benchmarks.sample --before 31f710e --seeds 0 1 2
    python -m benchmarks.sample --before HEAD --set train.epochs=8 train.lr=0.002

`--set` changes parameters of the second revision, `--after`. Each revision gets its own clone. In
turns, each runs the whole pipeline with the first seed, then training and evaluation with the
further seeds. CPU seconds are the sum over all processes, and more reliable than wall time on a
busy machine.
"""

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from benchmarks.machine import machine

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--before", required=True, help="a revision")
    parser.add_argument("--after", default="HEAD", help="another revision, or the same with --set")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    print(machine("torch", "dvc"), flush=True)
    scores: dict[str, list[float]] = {"before": [], "after": []}
    with tempfile.TemporaryDirectory() as name:
        for side in scores:
            run("git", "clone", "--quiet", str(ROOT), side, directory=Path(name))
            run("git", "checkout", "--quiet", getattr(options, side), directory=Path(name, side))
        set_params(Path(name, "after"), options.set)
        for seed in options.seeds:
            for side, values in scores.items():
                directory = Path(name, side)
                set_params(directory, [f"train.seed={seed}"])
                target = ["evaluate"] if values else []
                seconds, cpu = run("dvc", "repro", "--quiet", *target, directory=directory)
                test = json.loads((directory / "metrics/test.json").read_text(encoding="utf-8"))
                values.append(test["miou"])
                lowest = min(test["iou"], key=test["iou"].get)
                print(
                    f"{side:<7}seed {seed}: mean IoU {test['miou']:.3f}, "
                    f"lowest {lowest} {test['iou'][lowest]:.3f}; "
                    f"{' '.join(target) or 'all stages'}: {seconds:.0f} s, {cpu:.0f} CPU seconds",
                    flush=True,
                )
    for side, values in scores.items():
        print(f"{side:<7}mean IoU {mean(values):.3f}")


def set_params(directory: Path, changes: list[str]) -> None:
    path = directory / "params.yaml"
    params: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for change in changes:
        key, value = change.split("=", 1)
        section, name = key.split(".")
        params[section][name] = yaml.safe_load(value)
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def run(*command: str, directory: Path) -> tuple[float, float]:
    """Run a command that must succeed; return its wall-clock seconds and its CPU seconds."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=directory, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu


if __name__ == "__main__":
    main()
