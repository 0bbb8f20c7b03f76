"""The output and the messages of a stage's process, however it ends."""

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
from tests import LIMIT_S, ROOT, wait_until

SCRIPT = """
import errno, os, sys, time
from pathlib import Path
from cocoseg.core.errors import UserError
from cocoseg.core.stage import run_stage

def main():
    {body}

run_stage(main, Path("figures.json"))
"""


def start(directory: Path, code: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(directory: Path, body: str) -> tuple[int, str]:
    """The status and the error output of a stage."""
    process = start(directory, SCRIPT.format(body=body))
    _, errors = process.communicate(timeout=LIMIT_S)
    return process.returncode, errors


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise UserError('params.yaml: a.b:\\n unknown key')", "params.yaml: a.b: unknown key\n"),
        ("raise MemoryError", "out of memory: close other programs or lower the batch size"),
        (
            "raise OSError(errno.ENOSPC, 'x', 'data/masks')",
            "No space left on device: data/masks; free some disk space and rerun\n",
        ),
        (
            "next(Path('data/images').iterdir())",
            "No such file or directory: data/images; run `dvc repro` to create missing files\n",
        ),
        (
            "Path('data').touch(); Path('data/masks').mkdir(parents=True, exist_ok=True)",
            "Not a directory: data/masks; move the file that is in the place of a directory",
        ),
        (
            "Path('data').mkdir(); Path('data').read_text()",
            "Is a directory: data; move the directory that is in the place of a file",
        ),
    ],
)
def test_an_expected_failure_is_one_line_and_status_1(
    tmp_path: Path, body: str, message: str
) -> None:
    status, errors = run(tmp_path, body)
    assert status == 1
    assert errors.startswith(f"error: {message}")
    assert errors.count("\n") == 1
    assert not (tmp_path / "figures.json").exists()


@pytest.mark.parametrize("error", ["KeyError('x')", "ConnectionResetError(errno.ECONNRESET, 'x')"])
def test_a_defect_shows_its_traceback(tmp_path: Path, error: str) -> None:
    status, errors = run(tmp_path, f"raise {error}")
    assert status == 1
    assert errors.startswith("Traceback")
    assert errors.splitlines()[-1].startswith(error.partition("(")[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_removes_temporary_files_and_shows_no_traceback(
    tmp_path: Path, number: signal.Signals
) -> None:
    body = """
    from cocoseg.core.files import atomic_file
    with atomic_file(Path("out")) as temporary:
        temporary.touch()
        Path("started").touch()
        time.sleep(3600)"""
    process = start(tmp_path, SCRIPT.format(body=body))
    wait_until((tmp_path / "started").exists, process)
    assert (tmp_path / ".out.tmp").exists()
    process.send_signal(number)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 128 + number
    assert errors == ("interrupted: rerun to resume\n" if number == signal.SIGINT else "")
    assert [path.name for path in tmp_path.iterdir()] == ["started"]


def test_a_stage_of_dvc_ends_when_dvc_is_killed(tmp_path: Path) -> None:
    stage = SCRIPT.format(body="Path('started').touch(); time.sleep(3600)")
    run_stage = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {stage!r}])"
    dvc = start(tmp_path, f"import os; os.environ['DVC_STAGE'] = 'train'; {run_stage}")
    wait_until((tmp_path / "started").exists, dvc)
    dvc.kill()
    dvc.communicate(timeout=LIMIT_S)  # waits for the stage, which has the same stderr
    assert not (tmp_path / "figures.json").exists()


def test_a_wait_fails_at_once_when_the_awaited_process_has_ended(tmp_path: Path) -> None:
    process = start(tmp_path, SCRIPT.format(body="raise UserError('broken')"))
    with pytest.raises(AssertionError, match="ended with status 1: error: broken"):
        wait_until((tmp_path / "started").exists, process)
    with pytest.raises(AssertionError, match="still false after 0 seconds"):
        wait_until((tmp_path / "started").exists, limit_s=0)


def test_machine_figures_include_those_that_the_stage_returns(tmp_path: Path) -> None:
    assert run(tmp_path, "time.sleep(0.1); return {'device': 'cpu'}") == (0, "")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["device"] == "cpu"
    assert figures["seconds"] >= 0.1
    assert 5 < figures["peak_memory_mib"] < 10_000
    assert figures["cpus"] == os.cpu_count()


def test_shared_directories_are_in_the_project_that_dvc_names(
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


def test_a_library_of_another_version_than_the_pinned_one_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "cocoseg"
    for package in ("core", "not_imported"):
        (library / package).mkdir(parents=True)
        (library / package / "constraints.txt").write_text(
            f"numpy==0.1\npydantic=={metadata.version('pydantic')}\n", encoding="utf-8"
        )
    path = library / "core/constraints.txt"
    expected = f"numpy {metadata.version('numpy')} is installed, {path} pins 0.1"
    assert other_versions(library) == [expected]
    path.write_text("torch==2.14.1\n", encoding="utf-8")
    monkeypatch.setattr(metadata, "version", lambda name: "2.14.1+cpu")
    assert other_versions(library) == []


def test_the_installed_libraries_have_the_pinned_versions() -> None:
    assert other_versions(Path(stage.__file__).parents[1]) == []


IMPORT_ALL = """
import importlib, logging, os, pkgutil, signal, sys, warnings
from pathlib import Path
from tests import ROOT
from tests.import_graph import third_party_modules

def state():
    return {
        "warnings": list(warnings.filters),
        "levels": {logger.name: logger.level for logger in loggers},
        "handlers": list(logging.root.handlers),
        "environment": dict(os.environ),
        "SIGTERM": signal.getsignal(signal.SIGTERM),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "threads": torch.get_num_threads(),
        "pixels": Image.MAX_IMAGE_PIXELS,
    }

for name in sorted(third_party_modules(ROOT.glob("cocoseg/**/*.py"))):
    importlib.import_module(name)
import torch
from PIL import Image
loggers = [logging.root, *map(logging.getLogger, list(logging.root.manager.loggerDict))]
before = state()
import cocoseg
for name in cocoseg.__all__:
    getattr(cocoseg, name)
for module in pkgutil.walk_packages(cocoseg.__path__, "cocoseg."):
    importlib.import_module(module.name)
after = state()
for key in before:
    if before[key] != after[key]:
        sys.exit(f"importing cocoseg changes {key}: {before[key]} {after[key]}")
"""


def test_importing_the_library_changes_nothing_for_the_process() -> None:
    process = start(ROOT, IMPORT_ALL)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
