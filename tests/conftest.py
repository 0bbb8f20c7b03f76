"""What all tests need."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

# One thread each: pytest's workers take all cores, and threads that wait for each other's work burn
# the core on which it would be done. PyTorch's tests take a quarter of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts a job in the background makes it ignore Ctrl-C, and what it starts as well.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small file system can only be mounted by root")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)
