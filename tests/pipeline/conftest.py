"""A small project in a temporary Git repository, driven through the real dvc command line."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.cli import main
from filelock import FileLock

from tests import ROOT

BIN = Path(sys.executable).parent

TINY = {
    "download.sample.images": 60,
    "download.sample.width": 64,
    "download.sample.height": 48,
    "filter.max_images": 40,
    "train.size": 48,
    "train.crop": 32,
    "train.epochs": 2,
    "train.batch_size": 8,
    "train.threads": 1,
    "evaluate.threads": 1,
    "export.threads": 1,
    "export.variants": ["float32"],
    "evaluate.examples": 2,
    "runtime.workers": 0,
    "runtime.device": "cpu",
}
"""A run of seconds: the same stages and network on 40 images of 64x48 pixels."""


@dataclass
class Project:
    """A clone of this project's files, a Git repository of its own."""

    directory: Path

    def environment(self, **more: str) -> dict[str, str]:
        """What commands run in: this Python's programs are first on the path.

        How many threads a stage takes is for its parameters to say, not for tests/conftest.py.
        """
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        users = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        return {**users, "PATH": path, "WANDB_MODE": "disabled", **more}

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project."""
        env = self.environment(**environment)
        return subprocess.run(command, cwd=self.directory, env=env, capture_output=True, text=True)

    def succeed(self, *command: str, **environment: str) -> str:
        """The standard output of a command that must succeed."""
        result = self.run(*command, **environment)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def set_params(self, values: dict[str, Any]) -> None:
        """Change params.yaml: keys such as `filter.max_instances`."""
        path = self.directory / "params.yaml"
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key, value in values.items():
            *sections, name = key.split(".")
            section = params
            for part in sections:
                section = section[part]
            section[name] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")

    def results(self, *paths: str) -> dict[str, str]:
        """The MD5 of each file that stages have written, or of those at `paths`, by its name."""
        roots = [self.directory / path for path in paths or ("data", "models", "metrics")]
        files = [file for root in roots for file in ([root] if root.is_file() else root.rglob("*"))]
        return {
            file.relative_to(self.directory).as_posix(): hashlib.md5(file.read_bytes()).hexdigest()
            for file in sorted(files)
            if file.is_file() and file.name != ".gitignore"
        }

    def copy(self, directory: Path) -> "Project":
        """The same project in another folder. Its cache has links to this one's files, which DVC
        never changes."""

        def copy(source: str, target: str) -> None:
            if "/.dvc/cache/files/" in source:
                os.link(source, target)
            else:
                shutil.copy2(source, target)

        shutil.copytree(self.directory, directory, symlinks=True, copy_function=copy)
        return Project(directory)

    def commit(self, message: str) -> None:
        self.succeed("git", "add", "-A")
        self.succeed("git", "commit", "-qm", message)


def dvc(project: Project, command: str) -> int:
    """The status of a command of dvc's in this process, which is quicker than one of its own."""
    with chdir(project.directory):
        return int(main(command.split()))


def stages_run(output: str) -> list[str]:
    """The stages that dvc really ran, in order, by what it printed."""
    return re.findall(r"Running stage '(\w+)'", output)


def stages_restored(output: str) -> list[str]:
    """The stages whose results dvc took from its run cache, in order, by what it printed."""
    return re.findall(r"Stage '(\w+)' is cached - skipping run", output)


def make_project(directory: Path) -> Project:
    """Copy this project's tracked and new files, as they are now, into a new repository."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        source = ROOT / name
        if source.is_file() and not name.startswith(("metrics/", "dvc.lock")):
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    project = Project(directory)
    project.succeed("git", "init", "-q", "-b", "main")
    project.succeed("git", "config", "user.name", "test")
    project.succeed("git", "config", "user.email", "test@example.org")
    project.set_params(TINY)
    project.commit("the project with a tiny sample")
    return project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which `dvc repro` has run and been committed. Not to be changed by a test.

    pytest's workers share it: the first to come makes it, and the others wait.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = base / "finished.made"
    with FileLock(base / "finished.lock"):
        if made.exists():
            return Project(base / "finished")
        project = make_project(base / "finished")
        project.succeed("dvc", "repro")
        project.commit("a run")
        made.touch()
    return project


@dataclass
class Variants:
    """A project with experiments: `void` (other masks), `seed-0` (what is finished), `seed-1`."""

    project: Project
    printed: dict[str, str]
    """What `dvc exp run` printed for each that was run, and what `git status` did after `void`."""


@pytest.fixture(scope="session")
def variants(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Variants:
    """Experiments beside the finished run, which is what lies in the workspace. Not to be changed.

    `void` has run in a temporary folder, `seed-1` here, both until they were scored.
    """
    project = finished.copy(tmp_path_factory.mktemp("variants") / "project")
    project.succeed("dvc", "exp", "save", "--name", "seed-0")
    run = ("dvc", "exp", "run", "--name")
    printed = {
        "void": project.succeed(*run, "void", "--temp", "-S", "mask.overlap=void", "evaluate"),
        "status": project.succeed("git", "status", "--porcelain"),
    }
    assert project.results() == finished.results(), "--temp has changed the workspace"
    printed["seed-1"] = project.succeed(*run, "seed-1", "-S", "train.seed=1", "evaluate")
    project.succeed("git", "checkout", "-q", ".")
    project.succeed("dvc", "checkout", "-q")
    return Variants(project, printed)


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, with its cache, to change at will."""
    return finished.copy(tmp_path / "project")
