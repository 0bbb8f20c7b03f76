"""What a benchmark's figures depend on."""

import os
import platform
from importlib.metadata import version


def machine(*packages: str) -> str:
    """The machine's kind in one line: cores, architecture, Python, the named packages' versions."""
    versions = [f"{package} {version(package)}" for package in packages]
    parts = [f"{os.cpu_count()} cores", platform.machine(), f"Python {platform.python_version()}"]
    return ", ".join(parts + versions)
