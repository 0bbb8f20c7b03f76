"""Training that is killed at any moment goes on, and ends as if nothing had happened."""

import os
import shutil
import signal
import subprocess

import pytest

from tests.wandb_server import WandbServer

from .conftest import Project

pytestmark = pytest.mark.xdist_group("interruption")

FIRST_EPOCH, LAST_EPOCH = "epoch 1/", "epoch 2/"


def kill_after(project: Project, line: str, *command: str) -> None:
    """Start a command; SIGKILL it and all its children when training prints a line that begins so.

    What it printed is logged after an epoch's checkpoint is saved, and before the next epoch.
    """
    process = subprocess.Popen(
        command,
        cwd=project.directory,
        env=project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr
    printed = []
    for text in process.stderr:
        printed.append(text)
        if text.startswith(line):
            break
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, printed
    process.stderr.close()


def results(project: Project) -> dict[str, bytes]:
    directory = project.directory
    files = [directory / "models/model.safetensors", *(directory / "metrics/train").rglob("*.*")]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def assert_finished(project: Project, expected: dict[str, bytes]) -> None:
    assert results(project) == expected
    assert not list((project.directory / ".dvc/tmp/checkpoints").iterdir())
    curve = (project.directory / "metrics/train/plots/metrics/loss.tsv").read_text().split()
    assert curve[2::2] == ["0", "1"]


def test_a_killed_run_ends_with_the_bytes_of_an_uninterrupted_one(
    finished: Project, project: Project
) -> None:
    again = ("dvc", "repro", "--force", "--single-item", "train")
    for line in (FIRST_EPOCH, LAST_EPOCH):
        kill_after(project, line, *again)
    project.succeed(*again)
    assert_finished(project, results(finished))


def test_a_killed_run_of_two_processes_ends_so_as_well(project: Project) -> None:
    """First torchrun is started, then the stage, which starts it."""
    project.set_params({"train.processes": 2})
    torchrun = ("python", "-m", "cocoseg.training.distributed", "--standalone")
    two = (*torchrun, "--nproc-per-node=2", "-m", "stages.train")
    project.succeed(*two)
    uninterrupted = results(project)
    for directory in ("models", "metrics/train/plots"):
        shutil.rmtree(project.directory / directory)
    kill_after(project, FIRST_EPOCH, *two)
    project.succeed("python", "-m", "stages.train")
    assert_finished(project, uninterrupted)


@pytest.mark.slow
def test_a_run_whose_wandb_server_dies_ends_with_the_bytes_of_an_unwatched_one(
    finished: Project, project: Project
) -> None:
    (project.directory / "models/model.safetensors").unlink()
    with WandbServer(dies_at=0) as server:
        watched = project.run("python", "-m", "stages.train", **server.environment)
    assert watched.returncode == 0
    assert watched.stderr.count("W&B missed part of this run: ") == 1
    assert "Traceback" not in watched.stderr
    assert len(server.runs) == 1
    assert results(project) == results(finished)
