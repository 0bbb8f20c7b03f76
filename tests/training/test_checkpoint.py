"""A checkpoint is whole or missing, and belongs to exactly one run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from cocoseg.training import checkpoint
from cocoseg.training.checkpoint import CheckpointFile, explain_more_epochs, fingerprint
from tests import ROOT


def saved(directory: Path, key: str = "run") -> CheckpointFile:
    file = CheckpointFile(directory, key)
    file.save({"weights": weights(), "history": [{"loss": 0.1, "val": {"iou": None}}]})
    return file


def weights() -> torch.Tensor:
    return torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)


def test_a_loaded_checkpoint_equals_the_saved_one_including_memory_layout(tmp_path: Path) -> None:
    loaded = saved(tmp_path).load()
    assert loaded is not None
    assert torch.equal(loaded["weights"], weights())
    assert loaded["weights"].stride() == weights().stride()
    assert loaded["history"] == [{"loss": 0.1, "val": {"iou": None}}]


def test_the_checkpoint_of_another_run_is_not_loaded(tmp_path: Path) -> None:
    saved(tmp_path, "another run")
    assert CheckpointFile(tmp_path, "run").load() is None


def test_a_directory_keeps_the_newest_checkpoints_and_all_other_files(tmp_path: Path) -> None:
    for name in (".killed.1.pt.tmp", "image.png"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, ns=(0, 0))
    for number in range(10):
        file = saved(tmp_path, f"run{number}")
        os.utime(file.path, ns=(number, number))  # the clock may be coarser than these writes
    kept = {f"run{number}.pt" for number in range(2, 10)}
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "image.png"}
    file.remove()
    assert file.load() is None
    assert CheckpointFile(tmp_path, "run8").load() is not None


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_damaged_checkpoint_is_reported_and_not_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    file = saved(tmp_path)
    file.path.write_bytes(file.path.read_bytes()[:length])
    assert file.load() is None
    assert f"{file.path} is damaged" in caplog.text
    file.path.write_bytes(b"not an archive")
    assert file.load() is None


def test_the_fingerprint_depends_on_values_contents_and_the_version_of_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("1")
    first = fingerprint({"lr": 1}, [path])
    assert fingerprint({"lr": 1}, [path]) == first
    assert fingerprint({"lr": 2}, [path]) != first
    path.write_text("2")
    assert fingerprint({"lr": 1}, [path]) != first
    path.write_text("1")
    renamed = path.rename(tmp_path / "b.txt")
    assert fingerprint({"lr": 1}, [renamed]) != first
    renamed.rename(path)
    monkeypatch.setattr(checkpoint.torch, "__version__", "0.0")
    assert fingerprint({"lr": 1}, [path]) != first


@pytest.mark.parametrize(
    ("module", "included"),
    [
        ("cocoseg.training.loaded", True),
        ("cocoseg.params.loaded", False),  # parameters count by their values
        ("another.loaded", False),
    ],
)
def test_the_fingerprint_includes_loaded_code_except_params(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, included: bool
) -> None:
    loaded = ModuleType(module)
    loaded.__file__ = str(tmp_path / "loaded.py")
    monkeypatch.setitem(sys.modules, module, loaded)
    fingerprints = set()
    for code in ("a = 1", "a = 2"):
        Path(loaded.__file__).write_text(code)
        fingerprints.add(fingerprint({}, []))
    assert len(fingerprints) == 1 + included


def test_the_fingerprint_is_the_same_in_a_copy_of_the_project(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from cocoseg.training import checkpoint;"
        "print(checkpoint.fingerprint({'lr': 1}, [Path('data.txt').absolute()]))"
    )
    printed = set()
    for name in ("original", "copy"):
        shutil.copytree(ROOT / "cocoseg", tmp_path / name / "cocoseg")
        (tmp_path / name / "data.txt").write_text("1")
        command = [sys.executable, "-c", script]
        printed.add(subprocess.check_output(command, cwd=tmp_path / name))
    assert len(printed) == 1


@pytest.mark.parametrize(
    ("changes", "explained"),
    [
        ({"epochs": 12}, True),
        ({}, False),
        ({"epochs": 4}, False),
        ({"epochs": 12, "lr": 0.002}, False),
    ],
)
def test_more_epochs_than_in_the_finished_run_are_explained(
    changes: dict[str, float], explained: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    finished = {"epochs": 8, "lr": 0.001}
    lock = tmp_path / "dvc.lock"
    explain_more_epochs({**finished, **changes}, lock)  # no run yet
    stages = {"train": {"params": {"params.yaml": {"train": finished}}}}
    lock.write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    explain_more_epochs({**finished, **changes}, lock)
    messages = [message for message in caplog.messages if "learning rate" in message]
    assert len(messages) == explained
    if explained:
        assert "was 8 in the finished run and is 12" in messages[0]
        assert "docs/fine-tuning.md" in messages[0]
