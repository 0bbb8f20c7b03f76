"""Training that starts from the model of an earlier run, or from a file."""

import re
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from cocoseg.core.errors import UserError
from cocoseg.sources.commits import copy_initial_weights
from tests import ROOT
from tests.contract import changed_stages

from .conftest import Project, dvc

pytestmark = [
    pytest.mark.xdist_group("fine-tuning"),
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # from dvc
]

MODEL = "models/model.safetensors"
COMMANDS = [
    block.strip().splitlines()
    for block in re.findall(
        r"^```\n(.*?)^```$",
        (ROOT / "docs/fine-tuning.md").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
]
"""The lines of each code block of the documentation."""


def started_from(project: Project, line: str) -> str:
    """The line of the log that names the initial weights, of a documented training command."""
    result = project.run("sh", "-c", line)
    assert result.returncode == 0, result.stderr
    return next(line for line in result.stderr.splitlines() if line.startswith("starting from "))


def test_the_documented_commands_add_a_class_to_the_model_of_a_tag(project: Project) -> None:
    commit, (run, compare), _, log = COMMANDS[:4]
    (project.directory / "README.md").write_text("A change to commit.\n", encoding="utf-8")
    for line in commit:
        project.succeed("sh", "-c", line)
    assert started_from(project, run) == log[0]
    assert "with-dogs" in project.succeed("sh", "-c", compare)
    assert project.succeed("git", "status", "--porcelain") == ""


def test_the_documented_commands_start_from_a_file(project: Project, tmp_path: Path) -> None:
    download = tmp_path / "Downloads/theirs.safetensors"
    download.parent.mkdir()
    shutil.copy(project.directory / MODEL, download)
    *prepare, run = COMMANDS[2]
    for line in prepare:
        project.succeed("sh", "-c", line, HOME=str(tmp_path))
    line = started_from(project, f"{run} train")
    assert " from theirs.safetensors; rows of background, person, " in line
    assert "random" not in line


def test_training_depends_on_the_content_of_its_file_and_on_no_other_file(project: Project) -> None:
    weights = project.directory / "weights"

    def changes_train(file: str, content: bytes) -> bool:
        (weights / file).write_bytes(content)
        assert dvc(project, "repro initial_weights") == 0
        with Repo(str(project.directory)) as repo:
            assert "initial_weights" not in changed_stages(repo)
            return "train" in changed_stages(repo)

    assert not changes_train("other.safetensors", b"other")
    project.set_params({"train.weights": "weights/first.safetensors"})
    assert changes_train("first.safetensors", b"first")
    assert dvc(project, "commit --force train") == 0
    assert not changes_train("first.safetensors", b"first")
    assert not changes_train("other.safetensors", b"changed")
    assert changes_train("first.safetensors", b"changed")


def copied(project: Project, weights: str, directory: Path) -> dict[str, bytes]:
    """The files that `copy_initial_weights` writes, by name."""
    copy_initial_weights(weights, MODEL, directory, project=project.directory)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_model_of_a_revision_comes_from_the_cache_or_a_remote(
    project: Project, tmp_path: Path
) -> None:
    commit = project.succeed("git", "rev-parse", "HEAD").strip()
    project.succeed("git", "tag", "release/v1")
    experiment = f"refs/exps/{commit[:2]}/{commit[2:]}/wide"
    project.succeed("git", "update-ref", experiment, commit)
    model = (project.directory / MODEL).read_bytes()
    for revision, name in (
        (commit, f"{commit}.safetensors"),
        (commit[:7], f"{commit[:7]}.safetensors"),
        ("release/v1", "release+v1.safetensors"),
        ("wide", "wide.safetensors"),
    ):
        assert copied(project, f"run:{revision}", tmp_path / "copy") == {name: model}

    # A remote that the revision does not have.
    assert dvc(project, f"remote add --default storage {tmp_path / 'storage'}") == 0
    assert dvc(project, f"push {MODEL}") == 0
    shutil.rmtree(project.directory / ".dvc/cache")
    assert copied(project, "run:wide", tmp_path / "copy") == {"wide.safetensors": model}
    shutil.rmtree(tmp_path / "storage")
    shutil.rmtree(project.directory / ".dvc/cache", ignore_errors=True)
    with pytest.raises(
        UserError, match=r"run:wide has no models/model\.safetensors in DVC's cache"
    ):
        copied(project, "run:wide", tmp_path / "copy")
    assert (tmp_path / "copy/wide.safetensors").read_bytes() == model, "the last copy is kept"


def test_the_project_may_be_a_subdirectory_of_its_repository(tmp_path: Path) -> None:
    repository = Project(tmp_path / "repository")
    project = Project(repository.directory / "segmentation")
    path = project.directory / MODEL
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    repository.succeed("git", "init", "-q")
    for command in ("init -q --subdir", f"add -q {MODEL}"):
        assert dvc(project, command) == 0
    author = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    project.succeed("git", "add", "-A")
    project.succeed("git", *author, "commit", "-qm", "Model")
    path.unlink()
    commit = project.succeed("git", "rev-parse", "HEAD").strip()
    copies = copied(project, f"run:{commit}", tmp_path / "copy")
    assert copies == {f"{commit}.safetensors": b"weights"}


def test_a_revision_that_moves_or_does_not_exist_is_refused(
    finished: Project, tmp_path: Path
) -> None:
    commit = finished.succeed("git", "rev-parse", "--short=7", "HEAD").strip()
    for revision in ("main", "HEAD"):
        with pytest.raises(UserError, match=f"run:{revision} may name another .* run:{commit}, "):
            copied(finished, f"run:{revision}", tmp_path / "copy")
    with pytest.raises(UserError, match=r"train\.weights: run:nothing: no such commit, branch"):
        copied(finished, "run:nothing", tmp_path / "copy")
    with pytest.raises(UserError, match=r"run:\w+ has no models/model"):
        parent = finished.succeed("git", "rev-parse", "HEAD~1").strip()
        copied(finished, f"run:{parent}", tmp_path / "copy")
    with pytest.raises(UserError, match=r"weights/a\.safetensors not found; .*`dvc add weights/a"):
        copied(finished, "weights/a.safetensors", tmp_path / "copy")
    assert not any(tmp_path.iterdir())
    assert copied(finished, "imagenet", tmp_path / "copy") == {}
