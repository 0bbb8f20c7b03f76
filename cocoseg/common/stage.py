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
from pathlib import Path
from typing import Any

from cocoseg.common.errors import UserError
from cocoseg.common.files import write_json

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
    and no traceback.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.raiseExceptions = False  # a log file on a full disk is worth no traceback
    # SIGTERM unwinds the stack like Ctrl-C, so that temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = time.perf_counter()
    try:
        figures = main() or {}
        seconds = round(time.perf_counter() - started, 2)
        if machine_figures:
            write_json(machine_figures, {"seconds": seconds, **_machine(), **figures})
    except KeyboardInterrupt:
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


def shared_folder(name: str) -> Path:
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
