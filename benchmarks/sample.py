"""The whole sample, `dvc repro`, at one revision beside another, and what each scores.

    python -m benchmarks.sample --before 31f710e --after HEAD --seeds 0 1 2

Each revision gets a clone of its own. In turns, each runs from nothing to the report with the first
seed, then trains and scores anew with every further one. CPU seconds are those of all processes: on
a machine that does other things as well they say more than the clock.
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
    parser.add_argument("--before", required=True)
    parser.add_argument("--after", default="HEAD")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    print(machine("torch", "dvc"), flush=True)
    with tempfile.TemporaryDirectory() as name:
        revisions = (options.before, options.after)
        clones = {revision: Path(name) / revision for revision in revisions}
        scores: dict[str, list[float]] = {revision: [] for revision in clones}
        for revision, folder in clones.items():
            run("git", "clone", "--quiet", str(ROOT), str(folder), cwd=ROOT)
            run("git", "checkout", "--quiet", revision, cwd=folder)
        for seed in options.seeds:
            for revision, folder in clones.items():
                set_seed(folder / "params.yaml", seed)
                target = ["evaluate"] if scores[revision] else []
                wall, cpu = run("dvc", "repro", "--quiet", *target, cwd=folder)
                test = json.loads((folder / "metrics/test.json").read_text(encoding="utf-8"))
                scores[revision].append(test["miou"])
                lowest = min(test["iou"], key=test["iou"].get)
                what = " ".join(target) or "everything"
                print(
                    f"{revision:<10} seed {seed}: mean IoU {test['miou']:.3f}, lowest {lowest} "
                    f"{test['iou'][lowest]:.3f}; {what} in {wall:.0f} s, {cpu:.0f} CPU seconds",
                    flush=True,
                )
    for revision, values in scores.items():
        print(f"{revision:<10} mean IoU {mean(values):.3f}")


def set_seed(path: Path, seed: int) -> None:
    params: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["train"]["seed"] = seed
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def run(*command: str, cwd: Path) -> tuple[float, float]:
    """Run a command that must succeed; seconds by the clock, and of all its processes' CPU time."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=cwd, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu


if __name__ == "__main__":
    main()
