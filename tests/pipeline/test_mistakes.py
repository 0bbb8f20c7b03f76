"""Mistakes are reported in one line: the problem, its place and the remedy."""

import importlib
import logging
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator

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


@pytest.mark.parametrize("repository", ["none", "without a commit"])
def test_make_without_a_git_commit_explains_how_to_create_one(
    project: Project, repository: str
) -> None:
    shutil.rmtree(project.directory / ".git")
    if repository == "without a commit":
        project.succeed("git", "init", "-q")
    (project.directory / ".venv").mkdir()
    pins = "pyproject.toml constraints.txt cocoseg/*/constraints.txt"
    project.succeed("sh", "-c", f"cat {pins} > .venv/installed")  # or make installs everything
    result = project.run("make", "repro")
    assert result.returncode != 0
    first, *_ = result.stderr.splitlines()
    assert first.startswith("error: DVC requires a Git repository with a commit: run 'git init && ")
