"""What every stage script does around its own work: logs, one-line failures, machine figures."""

import errno
import logging
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from cocoseg.core.errors import UserError
from cocoseg.core.files import write_json

logger = logging.getLogger(__name__)

_LIBRARY = Path(__file__).parents[1]

_REMEDIES = {
    errno.ENOSPC: "make room, then run again",
    errno.EDQUOT: "make room, then run again",
    errno.EACCES: "give access, then run again",
    errno.EPERM: "give access, then run again",
    errno.EROFS: "give access, then run again",
    errno.ENOENT: "run `dvc repro`, which makes what is missing",
    errno.ENOTDIR: "move away the file that is in a folder's place, then run again",
    errno.EISDIR: "move away the folder that is in a file's place, then run again",
    errno.EEXIST: "move away what is in its place, then run again",
}


def run_stage(main: Callable[[], dict[str, Any] | None], machine_figures: Path | None) -> None:
    """Run `main` as a process of its own.

    What `main` returns (throughput, device), the seconds and the peak memory are written to
    `machine_figures`, if given. A UserError, a full disk, missing rights and files, and exhausted
    memory end the process with status 1 and one line; an interruption with the shell's usual status
    and no traceback. A library of another version than DVC takes it for is named in a warning.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.raiseExceptions = False  # a log file on a full disk is worth no traceback
    # SIGTERM unwinds the stack like Ctrl-C, so that temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = time.perf_counter()
    for difference in other_versions(_LIBRARY):
        logger.warning("%s: DVC will not know what made the results; `make install`", difference)
    try:
        figures = main() or {}
        seconds = round(time.perf_counter() - started, 2)
        if machine_figures:
            write_json(machine_figures, {"seconds": seconds, **_machine(), **figures})
    except KeyboardInterrupt:
        if machine_figures:
            logger.info("interrupted: run again, and it goes on from what is done")
        sys.exit(128 + signal.SIGINT)
    except UserError as error:
        _fail(str(error))
    except MemoryError:
        _fail("out of memory: close other programs, or lower the batch size or runtime.workers")
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        where = f" at {error.filename}" if error.filename else ""
        _fail(f"{os.strerror(error.errno)}{where}: {_REMEDIES[error.errno]}")


def other_versions(library: Path) -> list[str]:
    """Each library that is installed in another version than its package here is tested with.

    A package's `constraints.txt` names what it imports, and is a dependency of stages as its code
    is. Only packages that this process has imported count; a build (`2.14.1+cpu`) is its version.
    """
    found = {}
    for path in sorted(library.glob("*/constraints.txt")):
        if f"{library.name}.{path.parent.name}" in sys.modules:
            for line in path.read_text(encoding="utf-8").splitlines():
                name, _, version = line.partition("==")
                installed = metadata.version(name)
                if installed.partition("+")[0] != version:
                    found[name] = f"{name} {installed} is installed, {path} has {version}"
    return list(found.values())


def shared_directory(name: str) -> Path:
    """A folder for what has to outlive this folder: `.dvc/tmp/NAME` of the project.

    In a task of DVC's queue and under `--temp` it is that of the project from which the folder was
    copied, which DVC names in DVC_ROOT; without DVC, `models/tmp/NAME`.
    """
    project = Path(os.environ.get("DVC_ROOT", ""))
    return project / (".dvc/tmp" if (project / ".dvc").is_dir() else "models/tmp") / name


def _fail(message: str) -> None:
    sys.exit("error: " + " ".join(message.split()))


def _machine() -> dict[str, Any]:
    """Figures of this process and its finished children; memory in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "peak_memory_mib": round(peak * unit / 2**20),
        "cpus": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
