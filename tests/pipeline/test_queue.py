"""Experiments that are killed, shared with others, kept as a branch, and cleaned up."""

from pathlib import Path

import pytest

from .conftest import Project
from .test_experiments import experiments, hashes
from .test_interruption import FIRST_EPOCH, kill_after

pytestmark = pytest.mark.xdist_group("queue")

MODEL = "models/model.safetensors"


def test_a_killed_experiment_goes_on_when_it_is_run_again(project: Project, tmp_path: Path) -> None:
    project.set_params({"train.epochs": 4})
    uninterrupted = project.copy(tmp_path / "uninterrupted")
    uninterrupted.succeed("python", "-m", "stages.train")
    command = ["dvc", "exp", "run", "--temp", "--name", "variant", "train"]
    kill_after(project, FIRST_EPOCH, *command)
    assert not experiments(project)

    again = project.run(*command)
    assert again.returncode == 0, again.stderr
    assert "going on after epoch" in again.stderr
    assert "epoch 1/" not in again.stderr
    assert hashes(project, "variant")[MODEL] == uninterrupted.results(MODEL)[MODEL]
    assert not list((project.folder / ".dvc/tmp/checkpoints").iterdir())


def test_an_experiment_is_shared_kept_and_removed(project: Project, tmp_path: Path) -> None:
    project.succeed("dvc", "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    project.commit("where the data lies")
    project.succeed("dvc", "exp", "run", "--temp", "--name", "flip", "-S", "evaluate.flip=true")
    project.succeed("git", "clone", "-q", "--bare", ".", str(tmp_path / "origin"))
    project.succeed("git", "remote", "add", "origin", str(tmp_path / "origin"))
    project.succeed("dvc", "push")
    project.succeed("dvc", "exp", "push", "origin", "flip")

    project.succeed("git", "clone", "-q", str(tmp_path / "origin"), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    assert "flip" in clone.succeed("dvc", "exp", "list", "origin")
    clone.succeed("dvc", "exp", "pull", "origin", "flip")
    assert hashes(clone, "flip") == hashes(project, "flip")
    assert "evaluate.flip=True" in clone.succeed("cocoseg", "runs")
    clone.succeed("dvc", "exp", "branch", "flip", "with-flip")
    clone.succeed("dvc", "exp", "remove", "flip")
    clone.succeed("dvc", "exp", "remove", "--git-remote", "origin", "flip")
    assert "flip" not in clone.succeed("dvc", "exp", "list", "origin")
    clone.succeed("git", "switch", "-q", "with-flip")
    clone.succeed("dvc", "pull")
    assert "Data and pipelines are up to date." in clone.succeed("dvc", "repro")

    def cached(name: str) -> bool:
        cache = project.folder / ".dvc/cache/files/md5"
        return (cache / name[:2] / name[2:]).exists()

    counts = hashes(project, "flip")["metrics/test_images.json"]
    project.succeed("dvc", "gc", "--force", "--workspace", "--all-experiments")
    assert cached(counts)
    project.succeed("dvc", "gc", "--force", "--workspace")
    assert not cached(counts)
    assert "Data and pipelines are up to date." in project.succeed("dvc", "repro")
