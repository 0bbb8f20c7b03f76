"""Long stages log their progress in a log and draw bars on a terminal."""

import os
import re
import subprocess
import sys
import termios

import pytest

from .conftest import Project

IMPATIENT = """
import runpy, sys
from cocoseg.core import progress
progress.INTERVAL_S = 0
runpy.run_module(sys.argv[1], run_name="__main__")
"""
"""Runs a stage that logs each step instead of one line a minute."""

LINES = {
    "images": [r"images: 20/40 images, [\d.k]+ images/s, \d\d:\d\d left"],
    "mask": [r"masks: 20/40 images, [\d.k]+ images/s, \d\d:\d\d left"],
    "near_duplicates": [
        r"reading images: 20/40 images, [\d.k]+ images/s, \d\d:\d\d left",
        r"transforming images: 40/40 images, [\d.k]+ images/s, 00:00 left",
        r"comparing images: 1/1 blocks, [\d.k]+ blocks/s, 00:00 left",
    ],
    "inspect": [r"statistics: 20/40 images, [\d.k]+ images/s, \d\d:\d\d left"],
    "train": [
        r"training: 40/\d+ images, epoch 2/2, step \d/\d, loss \d\.\d{3}, "
        r"best mean IoU \d\.\d{3}, [\d.k]+ images/s, \d\d:\d\d left",
        r"validation: 2/\d+ images, [\d.k]+ images/s, \d\d:\d\d left",
    ],
    "evaluate": [r"evaluation: 2/\d+ images, [\d.k]+ images/s, \d\d:\d\d left"],
    "export": [
        r"int8: calibration: 16/\d+ images, [\d.k]+ images/s, \d\d:\d\d left",
        r"comparison with PyTorch: 1/\d+ batches, [\d.k]+ batches/s, \d\d:\d\d left",
        r"latency: 22/22 rounds, [\d.k]+ rounds/s, 00:00 left",
    ],
}


@pytest.mark.parametrize("stage", LINES)
def test_a_stage_logs_its_progress(project: Project, stage: str) -> None:
    project.set_params({"export.variants": ["float32", "int8"]})
    before = project.results(f"metrics/{stage}.json", "data", "models/model.safetensors")
    result = project.run(sys.executable, "-c", IMPATIENT, f"stages.{stage}")
    assert result.returncode == 0, result.stderr
    for line in LINES[stage]:
        assert re.search(f"^{line}$", result.stderr, flags=re.MULTILINE), result.stderr
    if stage != "export":
        after = project.results(f"metrics/{stage}.json", "data", "models/model.safetensors")
        assert after == before


def test_a_stage_draws_a_bar_on_a_terminal(project: Project) -> None:
    printed = on_terminal(project, sys.executable, "-c", IMPATIENT, "stages.train")
    assert re.search(r"\rtraining: .*%\|.*\| \d+/\d+ \[.* images/s, epoch 1/2, step 1/\d", printed)
    assert re.search(r"\rvalidation: .*%\|", printed)
    assert not re.search(r"^training: \d+/", printed, flags=re.MULTILINE)


def on_terminal(project: Project, *command: str) -> str:
    """Run a command with a terminal as its stderr, and return the text on the terminal."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 160))
    process = subprocess.Popen(
        command, cwd=project.directory, env=project.environment(), stderr=theirs
    )
    os.close(theirs)
    shown = bytearray()
    try:
        while part := os.read(ours, 1 << 16):
            shown += part
    except OSError:  # on Linux, the end of the other side
        pass
    finally:
        os.close(ours)
    assert process.wait() == 0, shown
    return shown.decode()
