"""The machine that runs a benchmark."""

import os
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path


def machine(*packages: str) -> str:
    """Describe the machine in one line: cores, architecture, Python, versions of `packages`."""
    versions = [f"{package} {version(package)}" for package in packages]
    parts = [f"{os.cpu_count()} cores", platform.machine(), f"Python {platform.python_version()}"]
    return ", ".join(parts + versions)


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
