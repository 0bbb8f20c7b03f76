"""Mistakes are reported in one line: the problem, its place and the remedy."""

import importlib
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from cocoseg.core.stage import run_stage

from .conftest import Project, stages_run

pytestmark = pytest.mark.xdist_group("pipeline")


def only_line(result: "subprocess.CompletedProcess[str]") -> str:
    """The single line of stderr of a command that failed."""
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.fixture
def refusal(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """A function that runs a failing stage in this process and returns its error message."""
    monkeypatch.chdir(project.directory)
    monkeypatch.setattr(logging, "raiseExceptions", logging.raiseExceptions)
    handler = signal.getsignal(signal.SIGTERM)

    def refusal(stage: str) -> str:
        with pytest.raises(SystemExit) as ended:
            run_stage(importlib.import_module(f"stages.{stage}").main, None)
        message = str(ended.value.code)  # Python prints it and exits with status 1
        assert message.startswith("error: ") and "\n" not in message
        return message

    yield refusal
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("filter", "data/annotations/instances.json"),
        ("split", "data/selection.json"),
        ("train", "data/images"),
        ("export", "models/model.safetensors"),
        ("report", "metrics/test.json"),
    ],
)
def test_a_stage_without_its_inputs_names_the_missing_file_and_the_remedy(
    project: Project, refusal: Callable[[str], str], stage: str, missing: str
) -> None:
    for directory in ("data", "models", "metrics"):
        shutil.rmtree(project.directory / directory)
    message = refusal(stage)
    assert missing in message
    assert "`dvc repro" in message


def test_the_remedy_for_a_damaged_image_restores_it(
    project: Project, refusal: Callable[[str], str]
) -> None:
    stem = (project.directory / "data/splits/test.txt").read_text().split()[0]
    path = project.directory / f"data/images/{stem}.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    message = refusal("export")
    assert f"data/images/{stem}.jpg is " in message
    assert "`dvc repro`" in message
    path.unlink()
    assert stages_run(project.succeed("dvc", "repro", "export")) == ["images"]
    assert path.read_bytes() == whole


@pytest.mark.parametrize("key", ["filter.max_images", "filter"])
def test_a_missing_key_is_named(project: Project, key: str) -> None:
    path = project.directory / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    section, _, name = key.partition(".")
    if name:
        del params[section][name]
    else:
        del params[section]
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    message = only_line(project.run("python", "-m", "stages.filter"))
    assert f"params.yaml: {key}: missing" in message
    result = project.run("dvc", "repro", "filter")
    assert result.returncode != 0
    assert "Traceback" not in result.stderr


def test_a_batch_size_that_the_processes_do_not_divide_is_refused(
    project: Project, refusal: Callable[[str], str]
) -> None:
    project.set_params({"train.processes": 2, "train.batch_size": 7})
    message = refusal("train")
    assert "params.yaml: train.processes: " in message


def pretend_installed(project: Project) -> None:
    """Write the file that records an installation, or make installs everything."""
    (project.directory / ".venv").mkdir()
    pins = "pyproject.toml constraints.txt cocoseg/*/constraints.txt"
    project.succeed("sh", "-c", f"{{ (cd .venv && pwd -P); cat {pins}; }} > .venv/installed")


def make_error(project: Project, **environment: str) -> str:
    """The first line of the error output of `make repro`, which fails before it starts dvc."""
    result = project.run("make", "repro", **environment)
    assert result.returncode != 0 and "stages." not in result.stdout
    first, *_ = result.stderr.splitlines()
    assert first.startswith("error: DVC requires a Git repository with a commit: ")
    return first


def test_make_gives_the_reason_and_the_remedy_if_git_has_no_commit(
    project: Project, tmp_path: Path
) -> None:
    pretend_installed(project)
    git, away = project.directory / ".git", tmp_path / "away"
    git.rename(away)
    remedy = ": run 'git init && git add -A && git commit -m start'"
    error = make_error(project)
    assert "fatal: not a git repository" in error and error.endswith(remedy)
    project.succeed("git", "init", "-q")
    assert make_error(project).endswith(remedy)
    shutil.rmtree(git)
    away.rename(git)
    if os.getuid() == 0:
        os.chown(project.directory, 12345, 12345)
        error = make_error(project)
        assert "dubious ownership" in error and "git init" not in error
        assert "git config --global --add safe.directory" in error


def test_make_warns_that_a_shallow_clone_loses_experiments(
    project: Project, tmp_path: Path
) -> None:
    clone = Project(tmp_path / "clone")
    url = project.directory.as_uri()
    project.succeed("git", "clone", "-q", "--depth", "1", url, str(clone.directory))
    pretend_installed(clone)
    clone.set_params({"filter.max_images": 0})
    result = clone.run("make", "repro")
    assert "warning: this clone is shallow" in result.stderr.splitlines()[0]
    assert "git fetch --unshallow" in result.stderr


def test_make_installs_again_in_a_checkout_that_was_moved(project: Project, tmp_path: Path) -> None:
    pretend_installed(project)
    assert "venv" not in project.succeed("make", "--dry-run", "install")
    moved = Project(project.directory.rename(tmp_path / "moved"))
    pip = moved.directory / ".venv/bin/pip"
    pip.parent.mkdir()
    pip.write_text(f"#!{project.directory}/.venv/bin/python\n")
    assert "-m venv --clear .venv\n" in moved.succeed("make", "--dry-run", "install")
    pip.write_text(f"#!{moved.directory}/.venv/bin/python\n")
    assert "-m venv  .venv\n" in moved.succeed("make", "--dry-run", "install")


def test_make_uses_a_linked_environment_as_it_is(project: Project, tmp_path: Path) -> None:
    pretend_installed(project)
    other = project.copy(tmp_path / "other")
    shutil.rmtree(other.directory / ".venv")
    (other.directory / ".venv").symlink_to(project.directory / ".venv")
    assert "venv" not in other.succeed("make", "--dry-run", "install")
    assert ".venv" not in other.succeed("git", "status", "--porcelain")
