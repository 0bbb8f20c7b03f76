"""One place feeds dvclive and W&B."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
from pathlib import Path
import numpy as np
from cocoseg.stage import run_stage
from cocoseg.tracking import track

def main():
    with track(Path("train"), {"lr": 1}, ["car"]) as tracker:
        for epoch, miou in enumerate([0.25, 0.5]):
            tracker.log_epoch(epoch, {"loss": 1.0, "val": {"miou": miou, "iou": {"car": None}}})
        photo, labels = np.zeros((4, 6, 3), np.uint8), np.array([[0, 1, 255]], np.uint8)
        tracker.log_predictions(1, [(photo, labels.repeat(4, 0), labels.repeat(4, 0))])
        tracker.summarize({"epoch": 1, "val": {"miou": 0.25}})

run_stage(main, Path("figures.json"))
"""


def run_script(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Track a run in a process of its own: W&B reads its environment once in a process."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    env |= {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "HOME": str(folder)}
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.run(
        command, cwd=folder, env={**env, **environment}, capture_output=True, text=True
    )


def test_figures_become_curves_and_a_summary(tmp_path: Path) -> None:
    result = run_script(tmp_path, WANDB_MODE="disabled")
    assert result.returncode == 0, result.stderr
    curve = (tmp_path / "train/plots/metrics/val/miou.tsv").read_text()
    assert curve.split() == ["step", "miou", "0", "0.25", "1", "0.5"]
    summary = json.loads((tmp_path / "train/metrics.json").read_text())
    assert summary["val"] == {"miou": 0.25}
    assert not (tmp_path / "wandb").exists()


def test_wandb_is_offline_by_default_and_keeps_the_run(tmp_path: Path) -> None:
    result = run_script(tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 1
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/predictions_*.png"))


def test_online_without_a_key_fails_at_once_in_one_line(tmp_path: Path) -> None:
    result = run_script(tmp_path, WANDB_MODE="online")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "WANDB_API_KEY" in result.stderr
    assert not (tmp_path / "train").exists()
