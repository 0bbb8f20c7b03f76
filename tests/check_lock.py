"""Check that the data stages reproduce the committed outputs byte for byte.

After `make repro`, run `python -m tests.check_lock`. It compares dvc.lock with the committed file
and exits with status 1 if an output differs.
"""

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

DATA_STAGES = ("download", "filter", "images", "mask", "near_duplicates", "split", "inspect")
"""Stages whose outputs are identical on every machine."""

Lock = Mapping[str, Any]


def output_hashes(lock: Lock, stages: Iterable[str]) -> dict[str, str]:
    """The hash of each output by path, without machine figures and the report, which vary."""
    return {
        out["path"]: out["md5"]
        for stage in stages
        for out in lock["stages"].get(stage, {}).get("outs", [])
        if not out["path"].startswith(("metrics/machine/", "metrics/report.html"))
    }


def differing_outputs(committed: Lock, present: Lock) -> list[str]:
    """The outputs of data stages whose hash differs between two locks or is missing from one."""
    first, second = (output_hashes(lock, DATA_STAGES) for lock in (committed, present))
    return sorted(path for path in first | second if first.get(path) != second.get(path))


def missing_stages(lock: Lock) -> list[str]:
    """The data stages without outputs in a lock."""
    return [stage for stage in DATA_STAGES if not output_hashes(lock, [stage])]


def main() -> None:
    path = Path("dvc.lock")
    shown = subprocess.run(["git", "show", f"HEAD:{path}"], stdout=subprocess.PIPE)
    if shown.returncode or not path.is_file():
        sys.exit(f"error: {path} must exist in the last commit and in the working directory")
    committed, present = yaml.safe_load(shown.stdout), yaml.safe_load(path.read_bytes())
    if missing := missing_stages(committed):
        sys.exit(
            f"error: the committed {path} has no outputs of {', '.join(missing)}; commit a new one"
        )
    if differing := differing_outputs(committed, present):
        sys.exit(
            f"error: outputs differ from the committed {path}: {', '.join(differing)}; "
            "if code or parameters of a data stage have changed, commit the new one"
        )
    count = len(output_hashes(present, DATA_STAGES))
    print(f"{path}: all {count} outputs of {', '.join(DATA_STAGES)} match the committed ones")


if __name__ == "__main__":
    main()
