"""Experiments that are killed, shared with others, kept as a branch, and cleaned up."""

from pathlib import Path

import pytest

from .conftest import Project, stages_run
from .test_experiments import experiments, hashes, lock_of
from .test_interruption import FIRST_EPOCH, kill_after

pytestmark = pytest.mark.xdist_group("queue")

MODEL = "models/model.safetensors"


def test_a_killed_experiment_goes_on_when_it_is_run_again(
    finished: Project, project: Project
) -> None:
    again = ("--force", "--single-item", "train")
    command = ["dvc", "exp", "run", "--temp", "--name", "variant", *again]
    kill_after(project, FIRST_EPOCH, *command)
    assert not experiments(project)

    again = project.run(*command)
    assert again.returncode == 0, again.stderr
    assert "going on after epoch" in again.stderr
    assert "epoch 1/" not in again.stderr
    assert hashes(project, "variant")[MODEL] == finished.results(MODEL)[MODEL]
    assert not list((project.folder / ".dvc/tmp/checkpoints").iterdir())


def test_an_experiment_is_shared_kept_and_removed(project: Project, tmp_path: Path) -> None:
    project.succeed("dvc", "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    project.commit("where the data lies")
    change = ("--name", "titled", "-S", "report.title=Another")
    printed = project.succeed("dvc", "exp", "run", "--temp", *change)
    assert stages_run(printed) == ["report"]
    project.succeed("git", "clone", "-q", "--bare", ".", str(tmp_path / "origin"))
    project.succeed("git", "remote", "add", "origin", str(tmp_path / "origin"))
    project.succeed("dvc", "push")
    project.succeed("dvc", "exp", "push", "origin", "titled")

    project.succeed("git", "clone", "-q", str(tmp_path / "origin"), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    assert "titled" in clone.succeed("dvc", "exp", "list", "origin")
    clone.succeed("dvc", "exp", "pull", "origin", "titled")
    assert lock_of(clone, "titled") == lock_of(project, "titled")
    assert "report.title=Another" in clone.succeed("cocoseg", "runs")
    clone.succeed("dvc", "exp", "branch", "titled", "with-title")
    clone.succeed("dvc", "exp", "remove", "titled")
    clone.succeed("dvc", "exp", "remove", "--git-remote", "origin", "titled")
    assert "titled" not in clone.succeed("dvc", "exp", "list", "origin")
    clone.succeed("git", "switch", "-q", "with-title")
    clone.succeed("dvc", "pull")
    assert "Data and pipelines are up to date." in clone.succeed("dvc", "repro")
    assert clone.results("data", "models") == project.results("data", "models")
    assert "Another" in (clone.folder / "metrics/report.html").read_text(encoding="utf-8")

    def cached(name: str) -> bool:
        cache = project.folder / ".dvc/cache/files/md5"
        return (cache / name[:2] / name[2:]).exists()

    [report] = lock_of(project, "titled")["stages"]["report"]["outs"]
    project.succeed("dvc", "gc", "--force", "--workspace", "--all-experiments")
    assert cached(report["md5"])
    project.succeed("dvc", "gc", "--force", "--workspace")
    assert not cached(report["md5"])
    assert "Data and pipelines are up to date." in project.succeed("dvc", "repro")
