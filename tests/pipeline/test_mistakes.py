"""What a user reads who gets it wrong: one line that says what, where and what to do."""

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
    """What a command that failed said, which must be one line."""
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.fixture
def refusal(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """What a stage ends with that fails in this process, where PyTorch is imported already."""
    monkeypatch.chdir(project.directory)
    monkeypatch.setattr(logging, "raiseExceptions", logging.raiseExceptions)
    handler = signal.getsignal(signal.SIGTERM)

    def refusal(stage: str) -> str:
        with pytest.raises(SystemExit) as ended:
            run_stage(importlib.import_module(f"stages.{stage}").main, None)
        said = str(ended.value.code)  # Python prints it, and ends with status 1
        assert said.startswith("error: ") and "\n" not in said
        return said

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
def test_a_stage_before_its_turn_names_what_is_missing_and_how_to_get_it(
    project: Project, refusal: Callable[[str], str], stage: str, missing: str
) -> None:
    for directory in ("data", "models", "metrics"):
        shutil.rmtree(project.directory / directory)
    said = refusal(stage)
    assert missing in said
    assert "`dvc repro" in said


def test_a_damaged_photo_is_brought_again_as_the_message_says(
    project: Project, refusal: Callable[[str], str]
) -> None:
    stem = (project.directory / "data/splits/test.txt").read_text().split()[0]
    path = project.directory / f"data/images/{stem}.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    said = refusal("export")
    assert f"data/images/{stem}.jpg is " in said
    assert "remove the file and run `dvc repro` to fetch it again" in said
    path.unlink()
    assert stages_run(project.succeed("dvc", "repro", "export")) == ["images"]
    assert path.read_bytes() == whole


@pytest.mark.parametrize("key", ["filter.max_images", "filter"])
def test_a_key_that_is_not_there_is_named(project: Project, key: str) -> None:
    path = project.directory / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    section, _, name = key.partition(".")
    if name:
        del params[section][name]
    else:
        del params[section]
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    said = only_line(project.run("python", "-m", "stages.filter"))
    assert f"params.yaml: {key}: missing; presets/ shows every key" in said
    result = project.run("dvc", "repro", "filter")
    assert result.returncode != 0
    assert "Traceback" not in result.stderr


def test_training_in_processes_that_cannot_share_a_batch_is_refused_before_it_starts(
    project: Project, refusal: Callable[[str], str]
) -> None:
    project.set_params({"train.processes": 2, "train.batch_size": 7})
    said = refusal("train")
    assert "train.processes: expected a divisor of train.batch_size (7), got 2" in said


@pytest.mark.parametrize("repository", ["none", "without a commit"])
def test_a_project_that_is_no_git_repository_says_how_to_make_one(
    project: Project, repository: str
) -> None:
    shutil.rmtree(project.directory / ".git")
    if repository == "without a commit":
        project.succeed("git", "init", "-q")
    (project.directory / ".venv").mkdir()
    pins = "pyproject.toml constraints.txt cocoseg/*/constraints.txt"
    project.succeed("sh", "-c", f"cat {pins} > .venv/installed")  # or make would install everything
    result = project.run("make", "repro")
    assert result.returncode != 0
    first, *_ = result.stderr.splitlines()
    assert first.startswith("error: DVC requires a Git repository with a commit: run 'git init && ")
