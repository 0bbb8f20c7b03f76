"""What a stage's process leaves and says, whatever happens in it."""

import json
import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from cocoseg.core import stage
from cocoseg.core.stage import other_versions, shared_directory
from tests import ROOT, wait_until

SCRIPT = """
import errno, os, sys, time
from pathlib import Path
from cocoseg.core.errors import UserError
from cocoseg.core.stage import run_stage

def main():
    {body}

run_stage(main, Path("figures.json"))
"""


def start(directory: Path, body: str) -> subprocess.Popen[str]:
    script = SCRIPT.format(body=body)
    root = ROOT
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise UserError('params.yaml: a.b:\\n unknown key')", "error: params.yaml: a.b: unknown"),
        ("raise OSError(errno.ENOSPC, 'x', 'data/masks')", "error: No space left on device at"),
        ("raise MemoryError", "error: out of memory"),
        (
            "Path('data/images').iterdir().__next__()",
            "error: No such file or directory at data/images: run `dvc repro`",
        ),
        (
            "Path('data').touch(); Path('data/masks').mkdir(parents=True, exist_ok=True)",
            "error: Not a directory at data/masks: move away the file",
        ),
        (
            "Path('data').mkdir(); Path('data').read_text()",
            "error: Is a directory at data: move away the folder",
        ),
    ],
)
def test_a_foreseen_failure_is_one_line_and_status_one(
    tmp_path: Path, body: str, message: str
) -> None:
    process = start(tmp_path, body)
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert stderr.startswith(message)
    assert stderr.count("\n") == 1
    assert not (tmp_path / "figures.json").exists()


@pytest.mark.parametrize("error", ["KeyError('x')", "ConnectionResetError(errno.ECONNRESET, 'x')"])
def test_a_defect_shows_its_traceback(tmp_path: Path, error: str) -> None:
    process = start(tmp_path, f"raise {error}")
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert "Traceback" in stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_unwinds_without_a_traceback(
    tmp_path: Path, number: signal.Signals
) -> None:
    body = """
    from cocoseg.core.files import atomic_file
    with atomic_file(Path("out")) as temporary:
        temporary.touch()
        Path("started").touch()
        time.sleep(3600)"""
    process = start(tmp_path, body)
    wait_until((tmp_path / "started").exists)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == 128 + number
    told = "interrupted: run again, and it goes on from what is done\n"
    assert stderr == (told if number == signal.SIGINT else "")
    assert [path.name for path in tmp_path.iterdir()] == ["started"]


def test_machine_figures_hold_what_the_stage_returns(tmp_path: Path) -> None:
    process = start(tmp_path, "return {'device': 'cpu'}")
    assert process.wait() == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["device"] == "cpu"
    assert figures["seconds"] >= 0
    assert 5 < figures["peak_memory_mib"] < 10_000


def test_what_outlives_a_folder_lies_in_the_project_that_dvc_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert shared_directory("checkpoints") == Path("models/tmp/checkpoints")
    (tmp_path / ".dvc").mkdir()
    assert shared_directory("checkpoints") == Path(".dvc/tmp/checkpoints")
    project = tmp_path / "project"
    (project / ".dvc").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(project))
    assert shared_directory("checkpoints") == project / ".dvc/tmp/checkpoints"


def test_a_library_of_another_version_than_its_package_names_is_told(tmp_path: Path) -> None:
    library = tmp_path / "cocoseg"
    (library / "common").mkdir(parents=True)
    path = library / "common/constraints.txt"
    path.write_text(f"numpy==0.1\npydantic=={metadata.version('pydantic')}\n", encoding="utf-8")
    expected = f"numpy {metadata.version('numpy')} is installed, {path} has 0.1"
    assert other_versions(library) == [expected]


def test_what_is_installed_here_are_the_versions_that_the_packages_name() -> None:
    assert other_versions(Path(stage.__file__).parents[1]) == []
