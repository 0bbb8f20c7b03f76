"""Small projects in temporary Git repositories, and functions that run dvc in them."""

import hashlib
import os
import re
import shutil
import signal
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
from tests.check_lock import output_hashes
from tests.contract import STAGES

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
    # With these, eight steps suffice for a network that predicts more than background.
    "train.lr": 0.01,
    "train.ema_decay": 0.5,
    "train.class_weights": "frequency",
    "evaluate.threads": 1,
    "export.threads": 1,
    "export.variants": ["float32"],
    "evaluate.examples": 2,
    "runtime.workers": 0,
    "runtime.device": "cpu",
}
"""The sample at 40 images of 64x48 pixels: all stages run within a minute."""


@dataclass
class Project:
    """A copy of this project in a separate Git repository."""

    directory: Path

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of commands: programs of this Python come first.

        OMP_NUM_THREADS of tests/conftest.py is removed: parameters set the threads of a stage.
        """
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        variables = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        return {**variables, "PATH": path, "WANDB_MODE": "disabled", **more}

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project directory."""
        env = self.environment(**environment)
        return subprocess.run(command, cwd=self.directory, env=env, capture_output=True, text=True)

    def succeed(self, *command: str, **environment: str) -> str:
        """Run a command that must succeed, and return its standard output."""
        result = self.run(*command, **environment)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def set_params(self, values: dict[str, Any]) -> None:
        """Set values in params.yaml by keys such as `filter.max_instances`."""
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
        """The MD5 of each file in `paths`, by default of all results, by its path."""
        roots = [self.directory / path for path in paths or ("data", "models", "metrics")]
        files = [file for root in roots for file in ([root] if root.is_file() else root.rglob("*"))]
        return {
            file.relative_to(self.directory).as_posix(): hashlib.md5(file.read_bytes()).hexdigest()
            for file in sorted(files)
            if file.is_file() and file.name != ".gitignore"
        }

    def copy(self, directory: Path) -> "Project":
        """Copy the project. The cache is hard-linked, since DVC never changes files in it."""

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
    """Run a dvc command in this process, which is faster, and return its exit status."""
    with chdir(project.directory):
        return int(main(command.split()))


def stages_run(output: str) -> list[str]:
    """The stages that ran, in order, according to the output of dvc."""
    return re.findall(r"Running stage '(\w+)'", output)


def stages_restored(output: str) -> list[str]:
    """The stages restored from the run cache, in order, according to the output of dvc."""
    return re.findall(r"Stage '(\w+)' is cached - skipping run", output)


def experiments(project: Project) -> dict[str, str]:
    """The Git references of the finished experiments by name."""
    refs = project.succeed("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    return {ref.rpartition("/")[2]: ref for ref in refs if not ref.startswith("refs/exps/exec")}


def lock_of(project: Project, name: str) -> Any:
    """The dvc.lock of an experiment."""
    text = project.succeed("git", "show", f"{experiments(project)[name]}:dvc.lock")
    return yaml.safe_load(text)


def hashes(project: Project, name: str) -> dict[str, str]:
    """The hashes of the outputs of an experiment, without machine figures and the report."""
    return output_hashes(lock_of(project, name), STAGES)


FIRST_EPOCH, LAST_EPOCH = "epoch 1/", "epoch 2/"
"""Beginnings of the log lines after the epochs of TINY."""


def checkpoints(project: Project) -> list[Path]:
    """The checkpoints of interrupted training runs."""
    return list((project.directory / ".dvc/tmp/checkpoints").glob("*.pt"))


def kill_after(project: Project, line: str, *command: str, whole_group: bool = True) -> list[str]:
    """Run a training command, and kill it at a line of stderr that begins so.

    The line is logged after the epoch's checkpoint is saved and before the next epoch.

    Args:
        project: the project.
        line: the beginning of the line.
        command: the command.
        whole_group: false kills only the process of the command, and waits for its children.

    Returns:
        The lines of stderr up to this line.
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
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    assert process.wait() == -signal.SIGKILL, printed
    printed += process.stderr  # until no process has the pipe
    process.stderr.close()
    assert len(checkpoints(project)) == 1
    return printed


def make_project(directory: Path) -> Project:
    """Copy this project's tracked and new files from the working tree to a new repository."""
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
    """A project with a committed run of `dvc repro`; tests must not change it.

    The pytest workers share it: the first one creates it while the others wait.
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
    """A finished project with the experiments `ignore` (overlaps ignored), `seed-0` and `seed-1`.

    Attributes:
        project: the project; `seed-0` is its finished run.
        printed: the output of `dvc exp run` by experiment.
        status_after_temp: the output of `git status` after `ignore`, which ran with `--temp`.
    """

    project: Project
    printed: dict[str, str]
    status_after_temp: str


@pytest.fixture(scope="session")
def variants(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Variants:
    """Experiments next to the finished run, which the workspace holds; tests must not change it.

    `ignore` ran in a temporary directory and `seed-1` in the workspace, both up to `evaluate`.
    """
    project = finished.copy(tmp_path_factory.mktemp("variants") / "project")
    project.succeed("dvc", "exp", "save", "--name", "seed-0")
    run = ("dvc", "exp", "run", "--name")
    ignore = project.succeed(*run, "ignore", "--temp", "-S", "mask.overlap=ignore", "evaluate")
    status = project.succeed("git", "status", "--porcelain")
    assert project.results() == finished.results(), "--temp changed the workspace"
    seed_1 = project.succeed(*run, "seed-1", "-S", "train.seed=1", "evaluate")
    project.succeed("git", "checkout", "-q", ".")
    project.succeed("dvc", "checkout", "-q")
    return Variants(project, {"ignore": ignore, "seed-1": seed_1}, status)


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project with its cache, for a test to change."""
    return finished.copy(tmp_path / "project")
