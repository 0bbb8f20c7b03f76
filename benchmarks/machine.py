"""What a benchmark's figures depend on."""

import os
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path


def machine(*packages: str) -> str:
    """The machine's kind in one line: cores, architecture, Python, the named packages' versions."""
    versions = [f"{package} {version(package)}" for package in packages]
    parts = [f"{os.cpu_count()} cores", platform.machine(), f"Python {platform.python_version()}"]
    return ", ".join(parts + versions)


def peak_memory() -> float:
    """The most memory that this process has held, in MiB.

    Linux counts a parent's memory into a child's `ru_maxrss`, so /proc is asked where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
