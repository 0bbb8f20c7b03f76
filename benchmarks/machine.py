"""The machine that runs a benchmark."""

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def machine(*packages: str) -> str:
    """Describe the machine in one line: cores, architecture, Python, versions of `packages`."""
    versions = [f"{package} {version(package)}" for package in packages]
    parts = [f"{os.cpu_count()} cores", platform.machine(), f"Python {platform.python_version()}"]
    return ", ".join(parts + versions)


def run_cocoseg(arguments: Sequence[object]) -> tuple[float, float, int]:
    """Run `cocoseg` with arguments, as `run_module`."""
    return run_module("cocoseg.cli", arguments)


def run_module(module: str, arguments: Sequence[object]) -> tuple[float, float, int]:
    """Run a module with arguments; return its seconds, CPU seconds and peak memory in MiB.

    The kernel reports the highest peak of all children, so a separate process starts this one.
    """
    code = (
        "import resource, subprocess, sys;"
        "subprocess.run([sys.executable, '-m', *sys.argv[1:]],"
        " check=True, stdout=subprocess.DEVNULL);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss)"
    )
    command = [sys.executable, "-c", code, module, *map(str, arguments)]
    started = time.perf_counter()
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    cpu, peak = result.stdout.split()
    return seconds, float(cpu), int(peak) // (2**20 if sys.platform == "darwin" else 2**10)


def peak_memory() -> float:
    """Peak memory of this process in MiB.

    On Linux `ru_maxrss` of a child includes its parent's memory, so /proc is read where it exists.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
