"""Experiments that are killed, shared, turned into a branch and removed."""

from pathlib import Path

import pytest

from .conftest import (
    FIRST_EPOCH,
    Project,
    checkpoints,
    dvc,
    experiments,
    hashes,
    kill_after,
    lock_of,
    stages_run,
)

pytestmark = [
    pytest.mark.xdist_group("queue"),
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # from dvc
]

MODEL = "models/model.safetensors"


def test_a_killed_experiment_resumes_when_it_is_rerun(finished: Project, project: Project) -> None:
    target = ["--force", "--single-item", "train"]
    command = ["dvc", "exp", "run", "--temp", "--name", "variant", *target]
    kill_after(project, FIRST_EPOCH, *command)
    assert not experiments(project)

    again = project.run(*command)
    assert again.returncode == 0, again.stderr
    assert "resuming after epoch 1 " in again.stderr
    assert FIRST_EPOCH not in again.stderr
    assert hashes(project, "variant")[MODEL] == finished.results(MODEL)[MODEL]
    assert not checkpoints(project)


def test_an_experiment_is_pushed_pulled_branched_and_removed(
    project: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert dvc(project, f"remote add --default storage {tmp_path / 'storage'}") == 0
    project.commit("a remote")
    change = ("--name", "titled", "-S", "report.title=Another")
    printed = project.succeed("dvc", "exp", "run", "--temp", *change)
    assert stages_run(printed) == ["report"]
    project.succeed("git", "clone", "-q", "--bare", ".", str(tmp_path / "origin"))
    project.succeed("git", "remote", "add", "origin", str(tmp_path / "origin"))
    assert dvc(project, "push") == dvc(project, "exp push origin titled") == 0

    project.succeed("git", "clone", "-q", str(tmp_path / "origin"), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    assert dvc(clone, "exp list origin") == 0
    assert "titled" in capfd.readouterr().out
    assert dvc(clone, "exp pull origin titled") == 0
    assert lock_of(clone, "titled") == lock_of(project, "titled")
    assert "report.title=Another" in clone.succeed("cocoseg", "runs")
    assert dvc(clone, "exp branch titled with-title") == 0
    assert dvc(clone, "exp remove titled") == 0
    assert dvc(clone, "exp remove --git-remote origin titled") == 0
    capfd.readouterr()
    assert dvc(clone, "exp list origin") == 0
    assert "titled" not in capfd.readouterr().out
    clone.succeed("git", "switch", "-q", "with-title")
    assert dvc(clone, "pull") == 0
    assert "Data and pipelines are up to date." in clone.succeed("dvc", "repro")
    assert clone.results("data", "models") == project.results("data", "models")
    assert "Another" in (clone.directory / "metrics/report.html").read_text(encoding="utf-8")

    def cached(name: str) -> bool:
        cache = project.directory / ".dvc/cache/files/md5"
        return (cache / name[:2] / name[2:]).exists()

    [report] = lock_of(project, "titled")["stages"]["report"]["outs"]
    assert dvc(project, "gc --force --workspace --all-experiments") == 0
    assert cached(report["md5"])
    assert dvc(project, "gc --force --workspace") == 0
    assert not cached(report["md5"])
    assert "Data and pipelines are up to date." in project.succeed("dvc", "repro")
