"""Programs that tests start and end by a signal."""

import signal
import subprocess
import sys

LIMIT_S = 60
"""A process that takes longer to end does not end at all."""


def start_program(code: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start Python code in a process with piped error output."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for_end(process: "subprocess.Popen[str]") -> str:
    """Wait for a process to end and return its error output."""
    try:
        _, errors = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return errors


def end_by_signal(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    """Send a signal and check that the process ends because of it, without a traceback."""
    process.send_signal(number)
    errors = wait_for_end(process)
    assert process.returncode in (-number, 128 + number)
    assert "Traceback" not in errors
