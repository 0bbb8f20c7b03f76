"""Settings and fixtures for all tests."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

# pytest's workers use all cores already. With several threads each, they wait for one another, and
# the tests of PyTorch take four times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell makes its background jobs, and their children, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The directory of a file system of 256 KiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("only root can mount a small file system")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)
