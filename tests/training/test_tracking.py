"""A training run is tracked by DVCLive and W&B."""

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from cocoseg.training.tracking import track
from tests import ROOT
from tests.wandb_files import OfflineRun, offline_runs
from tests.wandb_server import WandbServer

SCRIPT = """
from pathlib import Path
import numpy as np
from cocoseg.core.stage import run_stage
from cocoseg.training.listener import ValidationPrediction
from cocoseg.training.tracking import track

def main():
    with track(Path("train"), {"lr": 1}, ["car"], run_id="run") as tracker:
        sizes = [(4, 6), (6, 4)]
        predictions = [
            ValidationPrediction(
                np.zeros((*size, 3), np.uint8), np.ones(size, np.uint8), np.full(size, 2, np.uint8)
            )
            for size in sizes
        ]
        tracker.log_predictions(0, predictions)
        for epoch, miou in enumerate([0.25, 0.5]):
            tracker.log_epoch(epoch, {"loss": 1.0, "val": {"miou": miou, "iou": {"car": None}}})
        tracker.summarize({"epoch": 1, "val": {"miou": 0.25}})
        Path("model.safetensors").write_bytes(b"weights")
        tracker.log_model(Path("model.safetensors"))

run_stage(main, Path("machine.json"))
"""

EPOCHS = """
import sys
from pathlib import Path
from cocoseg.training.tracking import track

done, epochs = int(sys.argv[1]), int(sys.argv[2])
with track(Path("train"), {}, ["car"], run_id="fingerprint") as tracker:
    for epoch in range(epochs):
        tracker.log_epoch(epoch, {"loss": 1.0}, replayed=epoch < done)
    sys.stdin.read()
"""

TWO_TRAININGS = """
from pathlib import Path
from cocoseg.training.tracking import track

one, two = (track(Path("train"), {}, ["car"], run_id=name) for name in ("one", "two"))
with one as first, two as second:
    for epoch in range(2):
        for tracker in (first, second):
            tracker.log_epoch(epoch, {"loss": 1.0})
"""

FAILING = """
from cocoseg.core.errors import UserError

def fail():
    raise UserError("train.lr: too high")
"""


def environment_in(directory: Path) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "DVC_"))}
    return {**own, "PYTHONPATH": str(ROOT), "HOME": str(directory)}


def run_script(
    directory: Path, script: str = SCRIPT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Track a run in a separate process, since W&B reads its environment only once."""
    env = {**environment_in(directory), **environment}
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, cwd=directory, env=env, capture_output=True, text=True, timeout=300
    )


def test_metrics_become_curves_and_a_summary(tmp_path: Path) -> None:
    result = run_script(tmp_path, WANDB_MODE="disabled")
    assert result.returncode == 0, result.stderr
    curve = (tmp_path / "train/plots/metrics/val/miou.tsv").read_text()
    assert curve.split() == ["step", "miou", "0", "0.25", "1", "0.5"]
    summary = json.loads((tmp_path / "train/metrics.json").read_text())
    assert summary["val"] == {"miou": 0.25}
    assert not (tmp_path / "wandb").exists()


def test_curves_have_each_epoch_once_when_two_trainings_write_them(tmp_path: Path) -> None:
    result = run_script(tmp_path, TWO_TRAININGS, WANDB_MODE="disabled")
    assert result.returncode == 0, result.stderr
    curve = (tmp_path / "train/plots/metrics/loss.tsv").read_text()
    assert curve == "step\tloss\n0\t1.0\n1\t1.0\n"


def test_an_inactive_tracker_writes_nothing(tmp_path: Path) -> None:
    with track(tmp_path / "train", {}, ["car"], run_id="run", active=False) as tracker:
        tracker.log_epoch(0, {"loss": 1.0, "lr": 0.1, "val": {}})  # type: ignore[typeddict-item]
        tracker.summarize({"epoch": 1})
    assert not (tmp_path / "train").exists()


def test_wandb_is_offline_by_default_and_stores_the_run(tmp_path: Path) -> None:
    result = run_script(tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 1
    assert "sizes do not match" not in result.stderr + result.stdout
    images = tmp_path.glob("wandb/offline-run-*/files/media/images/predictions/*.png")
    assert {path.name[0] for path in images} == {"1", "2"}


def test_a_killed_run_resumes_in_wandb_as_the_same_run_without_repeated_steps(
    tmp_path: Path,
) -> None:
    task = tmp_path / "task"  # like a working directory of DVC's queue, which DVC deletes
    task.mkdir()
    env = {**environment_in(tmp_path), "DVC_ROOT": str(tmp_path), "DVC_EXP_NAME": "variant"}

    def start(done: int, epochs: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", EPOCHS, str(done), str(epochs)]
        return subprocess.Popen(command, cwd=task, env=env, stdin=subprocess.PIPE)

    killed = start(0, 3)
    while [run.steps for run in offline_runs(tmp_path)] != [[0, 1, 2]]:
        assert killed.poll() is None
        time.sleep(0.1)
    killed.kill()
    killed.communicate()
    resumed = start(3, 5)
    resumed.communicate()
    assert resumed.returncode == 0
    assert offline_runs(tmp_path) == [
        OfflineRun("fingerprint", "variant", [0, 1, 2]),
        OfflineRun("fingerprint", "variant", [3, 4]),
    ]
    curve = (task / "train/plots/metrics/loss.tsv").read_text().split()
    assert curve[2::2] == list("01234")
    assert not (task / "wandb").exists()


def test_online_without_an_api_key_fails_before_training_in_one_line(tmp_path: Path) -> None:
    result = run_script(tmp_path, WANDB_MODE="online")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "WANDB_API_KEY" in result.stderr
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_an_error_of_the_run_is_one_line_without_a_traceback(tmp_path: Path, mode: str) -> None:
    script = FAILING + SCRIPT.replace("[0.25, 0.5]", "fail()")
    result = run_script(tmp_path, script, WANDB_MODE=mode)
    assert result.returncode == 1
    assert result.stderr == "error: train.lr: too high\n"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "WANDB_MODE",
            "onlin",
            "error: WANDB_MODE: expected offline, online or disabled, got 'onlin'",
        ),
        ("WANDB_PROJECT", "a/b", "error: W&B failed to start: Invalid project name"),
        ("WANDB_BASE_URL", "nowhere", "error: W&B failed to start: "),
    ],
)
def test_an_invalid_wandb_variable_is_reported_in_one_line(
    tmp_path: Path, variable: str, value: str, message: str
) -> None:
    result = run_script(tmp_path, **{variable: value})
    assert result.returncode == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_an_online_run_has_curves_images_and_the_model(tmp_path: Path) -> None:
    with WandbServer() as server:
        result = run_script(tmp_path, DVC_EXP_NAME="variant", **server.environment)
        assert (result.returncode, result.stderr) == (0, "")
        assert server.runs.keys() == {"run"}
        run = server.runs["run"]
        assert run.name == "variant"
        assert [(line["_step"], line["val/miou"]) for line in run.history] == [(0, 0.25), (1, 0.5)]
        image = run.history[0]["predictions/1"]
        masks = [image["masks"][name] for name in ("ground_truth", "prediction")]
        for file in (image, *masks):
            assert run.files[file["path"]].startswith(b"\x89PNG")
        labels = [Image.open(io.BytesIO(run.files[mask["path"]])).getextrema() for mask in masks]
        assert labels == [(1, 1), (2, 2)]
        assert json.loads(run.files["wandb-summary.json"])["val/miou"] == 0.25
        assert run.artifacts["model"]["model.safetensors"] == b"weights"

        again = SCRIPT.replace("[0.25, 0.5]", "[0.25, 0.5, 0.75]")
        assert run_script(tmp_path, again, **server.environment).returncode == 0
        assert [line["_step"] for line in run.history] == [0, 1, 2]


@pytest.mark.parametrize("listening", [True, False])
def test_without_a_response_of_the_server_the_run_is_offline(
    tmp_path: Path, listening: bool
) -> None:
    server = WandbServer()  # not started
    if not listening:
        server.server_close()
    result = run_script(tmp_path, **server.environment)
    server.server_close()
    assert result.returncode == 0
    assert result.stderr.startswith("W&B is offline: ")
    assert result.stderr.count("\n") == 1
    [directory] = tmp_path.glob("wandb/offline-run-*")
    assert f"`wandb sync {directory}`" in result.stderr
    assert [run.steps for run in offline_runs(tmp_path)] == [[0, 1]]


def test_a_server_that_dies_during_the_run_is_a_warning_and_the_run_can_be_uploaded(
    tmp_path: Path,
) -> None:
    with WandbServer(dies_at=0) as server:
        result = run_script(tmp_path, **server.environment)
    assert result.returncode == 0
    assert result.stderr.startswith("W&B missed part of this run: ")
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "train/plots/metrics/loss.tsv").read_text().split()[-2:] == ["1", "1.0"]

    [command] = re.findall("`(wandb sync .+)`", result.stderr)
    with WandbServer() as server:
        env = {**environment_in(tmp_path), **server.environment}
        sync = [sys.executable, "-m", *command.split()]
        subprocess.run(sync, cwd=tmp_path, env=env, capture_output=True, check=True)
    assert [line["_step"] for line in server.runs["run"].history] == [0, 1]


def test_a_git_repository_without_a_commit_is_reported_in_one_line(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
    result = run_script(tmp_path, WANDB_MODE="disabled")
    assert result.returncode == 1
    assert result.stderr.startswith("error: Git: Empty git repo")
