"""After `make repro` in a fresh clone: did the data stages write the bytes that are committed?

python -m tests.check_lock      compares dvc.lock with that of the last commit; status 1: no
"""

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

DATA_STAGES = ("download", "filter", "images", "mask", "split", "inspect")
"""Their outputs are the same on every machine; those of the others, on the same machine."""

Lock = Mapping[str, Any]


def output_hashes(lock: Lock, stages: Iterable[str]) -> dict[str, str]:
    """The hash of each output, by path. Machine figures and the report differ from run to run."""
    return {
        out["path"]: out["md5"]
        for stage in stages
        for out in lock["stages"].get(stage, {}).get("outs", [])
        if not out["path"].startswith(("metrics/machine/", "metrics/report.html"))
    }


def differing_outputs(committed: Lock, present: Lock) -> list[str]:
    """The paths of what the data stages wrote that have another hash, or none, in one of them."""
    first, second = (output_hashes(lock, DATA_STAGES) for lock in (committed, present))
    return sorted(path for path in first | second if first.get(path) != second.get(path))


def missing_stages(lock: Lock) -> list[str]:
    """The data stages of which the lock knows nothing: there is nothing to compare."""
    return [stage for stage in DATA_STAGES if not output_hashes(lock, [stage])]


def main() -> None:
    path = Path("dvc.lock")
    shown = subprocess.run(["git", "show", f"HEAD:{path}"], stdout=subprocess.PIPE)
    if shown.returncode or not path.is_file():
        sys.exit(f"error: {path}: there must be one in the last commit, and one here")
    committed, present = yaml.safe_load(shown.stdout), yaml.safe_load(path.read_bytes())
    if missing := missing_stages(committed):
        sys.exit(f"error: the committed {path} has no outputs of {', '.join(missing)}")
    if differing := differing_outputs(committed, present):
        sys.exit(
            f"error: {path}: other bytes than those committed: {', '.join(differing)}; "
            "where code or parameters of a data stage changed, commit the new one"
        )
    count = len(output_hashes(present, DATA_STAGES))
    print(f"{path}: all {count} outputs of {', '.join(DATA_STAGES)} have the committed bytes")


if __name__ == "__main__":
    main()
