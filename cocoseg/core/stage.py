"""Logging, error messages and machine figures of a stage."""

import errno
import logging
import os
import platform
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from cocoseg.core.errors import UserError
from cocoseg.core.files import write_json
from cocoseg.core.parallel import exit_with_parent

logger = logging.getLogger(__name__)

_LIBRARY = Path(__file__).parents[1]

_REMEDIES = {
    errno.ENOSPC: "free some disk space and rerun",
    errno.EDQUOT: "free some disk space and rerun",
    errno.EACCES: "change the permissions and rerun",
    errno.EPERM: "change the permissions and rerun",
    errno.EROFS: "make the file system writable and rerun",
    errno.ENOENT: "run `dvc repro` to create missing files",
    errno.ENOTDIR: "move the file that is in the place of a directory and rerun",
    errno.EISDIR: "move the directory that is in the place of a file and rerun",
    errno.EEXIST: "move the existing file or directory and rerun",
}


def run_stage(main: Callable[[], dict[str, Any] | None], machine_figures: Path | None) -> None:
    """Run `main` as the main function of a stage or of the command line.

    A UserError, exhausted memory, a full disk and a missing or inaccessible file end the process
    with one line and status 1. An interruption, and a closed pipe, such as that of `| head`, end it
    with the shell's usual status and without a traceback.

    Args:
        main: returns machine figures, such as the throughput and the device, or None.
        machine_figures: a JSON file for these figures, the time in seconds and the peak memory;
            None writes no file.
    """
    _set_up_process()
    started = time.perf_counter()
    for difference in other_versions(_LIBRARY):
        logger.warning(
            "%s: DVC does not record this version with the results; run `make install`", difference
        )
    try:
        with _quiet_pipe():
            figures = main() or {}
        seconds = round(time.perf_counter() - started, 2)
        if machine_figures:
            write_json(machine_figures, {"seconds": seconds, **_machine(), **figures})
    except KeyboardInterrupt:
        if machine_figures:
            logger.info("interrupted: rerun to resume")
        sys.exit(128 + signal.SIGINT)
    except UserError as error:
        _fail(str(error))
    except MemoryError:
        _fail("out of memory: close other programs or lower the batch size or runtime.workers")
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        where = f": {error.filename}" if error.filename else ""
        _fail(f"{os.strerror(error.errno)}{where}; {_REMEDIES[error.errno]}")


@contextmanager
def _quiet_pipe() -> Iterator[None]:
    """End the process without a traceback if the reader of its output has closed the pipe."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the exit
        sys.exit(128 + signal.SIGPIPE)


def _set_up_process() -> None:
    """Configure logging, warnings and signals, which importing the library leaves unchanged."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.raiseExceptions = False  # no traceback when the log itself is on a full disk
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no notice about its font cache
    logging.getLogger("onnxruntime").setLevel(logging.WARNING)  # no counts of removed nodes
    # Pillow warns at length about damaged images, which stages report in one line.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # SIGTERM unwinds the stack like Ctrl-C, so that temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if "DVC_STAGE" in os.environ:
        exit_with_parent()  # a killed dvc does not stop it, and a rerun writes the same files


def other_versions(library: Path) -> list[str]:
    """Describe each installed library whose version differs from the pinned one.

    The `constraints.txt` of a package pins the libraries that it imports, and stages depend on it
    as on the code. Only packages that this process has imported count. A build such as
    `2.14.1+cpu` counts as its version.

    Args:
        library: the directory of the `cocoseg` package.
    """
    found = {}
    for path in sorted(library.glob("*/constraints.txt")):
        if f"{library.name}.{path.parent.name}" in sys.modules:
            for line in path.read_text(encoding="utf-8").splitlines():
                name, _, version = line.partition("==")
                installed = metadata.version(name)
                if installed.partition("+")[0] != version:
                    found[name] = f"{name} {installed} is installed, {path} pins {version}"
    return list(found.values())


def shared_directory(name: str) -> Path:
    """The directory for files that outlive a temporary copy of the project.

    It is `.dvc/tmp/NAME` of the project. DVC's queue and `--temp` run stages in a temporary copy;
    DVC_ROOT then names the project. Without DVC it is `models/tmp/NAME`.
    """
    project = Path(os.environ.get("DVC_ROOT", ""))
    return project / (".dvc/tmp" if (project / ".dvc").is_dir() else "models/tmp") / name


def _fail(message: str) -> None:
    sys.exit("error: " + " ".join(message.split()))


def _machine() -> dict[str, Any]:
    """Figures of this process and its finished children; memory in MiB."""
    import resource  # not on Windows, where the command line works all the same

    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
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
