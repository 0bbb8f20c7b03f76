"""A checkpoint belongs to one run and is whole or not there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cocoseg.training.checkpoint import CheckpointFile, fingerprint
from tests import ROOT


def saved(directory: Path, key: str = "run") -> CheckpointFile:
    file = CheckpointFile(directory, key)
    file.save({"weights": weights(), "history": [{"loss": 0.1, "val": {"iou": None}}]})
    return file


def weights() -> torch.Tensor:
    return torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)


def test_a_checkpoint_comes_back_as_it_was_memory_layout_included(tmp_path: Path) -> None:
    loaded = saved(tmp_path).load()
    assert loaded is not None
    assert torch.equal(loaded["weights"], weights())
    assert loaded["weights"].stride() == weights().stride()
    assert loaded["history"] == [{"loss": 0.1, "val": {"iou": None}}]


def test_a_checkpoint_of_another_run_is_not_used(tmp_path: Path) -> None:
    saved(tmp_path, "another run")
    assert CheckpointFile(tmp_path, "run").load() is None


def test_a_folder_keeps_the_latest_few_and_what_is_no_checkpoint(tmp_path: Path) -> None:
    for name in (".killed.1.pt.tmp", "photo.png"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, ns=(0, 0))
    for number in range(10):
        file = saved(tmp_path, f"run{number}")
        os.utime(file.path, ns=(number, number))  # the clock may be coarser than these writes
    kept = {f"run{number}.pt" for number in range(2, 10)}
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "photo.png"}
    file.remove()
    assert file.load() is None
    assert CheckpointFile(tmp_path, "run8").load() is not None


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_damaged_checkpoint_is_not_used_but_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    file = saved(tmp_path)
    file.path.write_bytes(file.path.read_bytes()[:length])
    assert file.load() is None
    assert f"{file.path} is damaged" in caplog.text
    file.path.write_bytes(b"no archive at all")
    assert file.load() is None


def test_the_fingerprint_covers_values_and_contents(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("1")
    first = fingerprint({"lr": 1}, [path])
    assert fingerprint({"lr": 1}, [path]) == first
    assert fingerprint({"lr": 2}, [path]) != first
    path.write_text("2")
    assert fingerprint({"lr": 1}, [path]) != first


def test_the_fingerprint_is_the_same_in_a_copy_of_the_project(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from cocoseg.training import checkpoint;"
        "print(checkpoint.fingerprint({'lr': 1}, [Path('data.txt').absolute()]))"
    )
    printed = set()
    for name in ("here", "there"):
        shutil.copytree(ROOT / "cocoseg", tmp_path / name / "cocoseg")
        (tmp_path / name / "data.txt").write_text("1")
        command = [sys.executable, "-c", script]
        printed.add(subprocess.check_output(command, cwd=tmp_path / name))
    assert len(printed) == 1
