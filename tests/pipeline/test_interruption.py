"""Interrupted training resumes, and has the same results as uninterrupted training."""

import shutil

import pytest

from tests.wandb_server import WandbServer

from .conftest import FIRST_EPOCH, LAST_EPOCH, Project, checkpoints, kill_after

pytestmark = pytest.mark.xdist_group("interruption")


def results(project: Project) -> dict[str, str]:
    return project.results("models/model.safetensors", "metrics/train")


def assert_finished(project: Project, expected: dict[str, str]) -> None:
    assert results(project) == expected
    assert not checkpoints(project)
    curve = (project.directory / "metrics/train/plots/metrics/loss.tsv").read_text().split()
    assert curve[2::2] == ["0", "1"]


def test_a_killed_run_and_one_that_cannot_save_its_model_resume_with_the_same_bytes(
    finished: Project, project: Project
) -> None:
    command = ("dvc", "repro", "--force", "--single-item", "train")
    kill_after(project, FIRST_EPOCH, *command)
    obstacle = project.directory / "models/model.safetensors"
    obstacle.mkdir()
    (obstacle / "file").touch()
    second = project.run("python", "-m", "stages.train")
    assert second.returncode == 1
    assert "resuming after epoch 1 " in second.stderr
    assert FIRST_EPOCH not in second.stderr and LAST_EPOCH in second.stderr
    assert len(checkpoints(project)) == 1
    shutil.rmtree(obstacle)
    third = project.run(*command)
    assert third.returncode == 0
    assert "resuming after epoch 2 " in third.stderr
    assert FIRST_EPOCH not in third.stderr and LAST_EPOCH not in third.stderr
    assert_finished(project, results(finished))


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])
def test_a_training_ends_with_the_dvc_that_started_it(
    project: Project, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", shell)  # dvc runs the command of a stage in it
    project.set_params({"train.epochs": 60})
    command = ("dvc", "repro", "--single-item", "train")
    printed = kill_after(project, FIRST_EPOCH, *command, whole_group=False)
    assert not any(line.startswith("epoch 60/") for line in printed)


def test_a_killed_run_of_two_processes_resumes_with_the_same_bytes(project: Project) -> None:
    """The first runs are started by torchrun; the last starts torchrun itself."""
    project.set_params({"train.processes": 2})
    torchrun = ("python", "-m", "cocoseg.training.distributed", "--standalone")
    two = (*torchrun, "--nproc-per-node=2", "-m", "stages.train")
    project.succeed(*two)
    uninterrupted = results(project)
    (project.directory / "models/model.safetensors").unlink()
    shutil.rmtree(project.directory / "metrics/train/plots")
    kill_after(project, FIRST_EPOCH, *two)
    resumed = project.run("python", "-m", "stages.train")
    assert resumed.returncode == 0
    assert "resuming after epoch 1 " in resumed.stderr
    assert_finished(project, uninterrupted)


@pytest.mark.slow
def test_a_run_whose_wandb_server_dies_has_the_same_bytes(
    finished: Project, project: Project
) -> None:
    (project.directory / "models/model.safetensors").unlink()
    with WandbServer(dies_at=0) as server:
        watched = project.run("python", "-m", "stages.train", **server.environment)
    assert watched.returncode == 0
    assert watched.stderr.count("upload it later with") == 1
    assert "Traceback" not in watched.stderr
    assert len(server.runs) == 1
    assert results(project) == results(finished)
