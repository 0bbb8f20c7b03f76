"""Training that is killed at any moment goes on, and ends as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import BIN, Project

pytestmark = pytest.mark.xdist_group("interruption")


def kill_during(project: Project, moment: float) -> bool:
    """Start `dvc repro train`, SIGKILL it and all its children after `moment` seconds of training.

    Returns whether it was still running then.
    """
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        ["dvc", "repro", "train"],
        cwd=project.folder,
        env={**os.environ, "PATH": path, "WANDB_MODE": "disabled"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr
    for line in process.stderr:
        if line.startswith(("starting from", "going on after")):
            break
    time.sleep(moment)
    running = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    return running


def results(project: Project) -> dict[str, bytes]:
    folder = project.folder
    files = [folder / "models/model.safetensors", *(folder / "metrics/train").rglob("*.*")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(("processes", "kills"), [(1, 3), (2, 1)])
def test_a_killed_run_ends_with_the_bytes_of_an_uninterrupted_one(
    project: Project, tmp_path: Path, processes: int, kills: int
) -> None:
    project.set_params({"train.epochs": 6, "train.processes": processes})
    other = project.copy(tmp_path / "other")
    other.succeed("dvc", "repro", "train")
    random.seed(processes)
    killed = sum(kill_during(project, random.uniform(0, 2)) for _ in range(kills))
    assert killed > 0
    project.succeed("dvc", "repro", "train")
    assert results(project) == results(other)
    assert not (project.folder / "models/checkpoint.pt").exists()
    curve = (project.folder / "metrics/train/plots/metrics/loss.tsv").read_text().split()
    assert curve[2::2] == [str(epoch) for epoch in range(6)]


def test_a_checkpoint_of_other_parameters_is_not_used(project: Project, tmp_path: Path) -> None:
    project.set_params({"train.epochs": 6})
    other = project.copy(tmp_path / "other")
    while not (project.folder / "models/checkpoint.pt").exists():
        assert kill_during(project, 1.0)
    for each in (project, other):
        each.set_params({"train.epochs": 2, "train.lr": 0.001})
        each.succeed("dvc", "repro", "train")
    assert results(project) == results(other)
    epoch = json.loads((project.folder / "metrics/train/metrics.json").read_text())["epoch"]
    assert epoch in (1, 2)
