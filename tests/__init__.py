"""The tests mirror `cocoseg/` and `stages/`; `tests/pipeline/` runs the real dvc command line."""

import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The project's folder."""


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what is to be seen; pytest's own limit ends a test in which it never is."""
    while not condition():
        time.sleep(0.01)
