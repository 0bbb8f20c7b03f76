"""The tests mirror `cocoseg/` and `stages/`; `tests/pipeline/` runs the real dvc command line."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
"""The project's directory."""

LIMIT_S = 120
"""A last resort against a hang: far longer than anything that a test waits for."""


def wait_until(
    condition: Callable[[], bool],
    process: "subprocess.Popen[Any] | None" = None,
    limit_s: float = LIMIT_S,
) -> None:
    """Poll until a condition holds.

    Args:
        condition: polled every 10 ms.
        process: the process that makes the condition true. If it ends first, the wait fails at
            once with its status and its piped error output.
        limit_s: the wait fails after this time in seconds.

    Raises:
        AssertionError: the process has ended or the time is over, and the condition is false.
    """
    deadline = time.monotonic() + limit_s
    while not condition():
        if process and process.poll() is not None and not condition():
            errors = None
            with suppress(subprocess.TimeoutExpired, ValueError):  # a pipe in use or closed
                _, errors = process.communicate(timeout=10)
            raise AssertionError(f"the process ended with status {process.returncode}: {errors}")
        assert time.monotonic() < deadline, f"the condition is still false after {limit_s} seconds"
        time.sleep(0.01)
