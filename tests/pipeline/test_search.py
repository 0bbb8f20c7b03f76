"""`cocoseg search` with the real dvc: an interrupted search, and what its trials leave."""

import signal
import subprocess
from pathlib import Path

import pytest

from .conftest import FIRST_EPOCH, LAST_EPOCH, Project, checkpoints, experiments, lock_of

pytestmark = pytest.mark.xdist_group("queue")


def run_search(project: Project, *, interrupt_after: str | None = None) -> list[str]:
    """Run a search of two trials, and return the lines that it logs and prints."""
    process = subprocess.Popen(
        ["cocoseg", "search", "lr.yaml", "--trials", "2"],
        cwd=project.directory,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    printed = []
    for line in process.stdout:
        printed.append(line)
        if interrupt_after and line.strip().startswith(interrupt_after):
            process.send_signal(signal.SIGINT)
    expected = 128 + signal.SIGINT if interrupt_after else 0
    assert process.wait() == expected, printed
    return printed


def temporary_directories(project: Project) -> list[Path]:
    return list((project.directory / ".dvc/tmp/exps/standalone").glob("tmp*"))


def test_an_interrupted_search_continues_and_scores_no_test_image(project: Project) -> None:
    (project.directory / "lr.yaml").write_text("train.lr: {low: 0.004, high: 0.03}\n")
    project.commit("a search space")
    before = project.results()
    printed = run_search(project, interrupt_after=FIRST_EPOCH)
    # The first trial has the current values: its training comes from DVC's cache.
    assert not any(line.startswith("lr-2: ") for line in printed)
    assert experiments(project).keys() == {"lr-1"}
    assert not temporary_directories(project)
    assert len(checkpoints(project)) == 1

    again = run_search(project)
    assert not any(line.strip().startswith(FIRST_EPOCH) for line in again)
    assert any(line.strip().startswith(LAST_EPOCH) for line in again)
    assert experiments(project).keys() == {"lr-1", "lr-3"}
    assert not checkpoints(project) and not temporary_directories(project)
    assert project.results() == before
    assert project.succeed("git", "status", "--porcelain") == ""
    first, last = (lock_of(project, name)["stages"] for name in ("lr-1", "lr-3"))
    assert last["train"] != first["train"]
    assert last["evaluate"] == first["evaluate"]
    assert any("dvc exp run -n lr-best -S train.lr=" in line for line in again)
