"""How long `dvc repro` takes to find that nothing has changed, with 8,000 images and masks present.

    python -m benchmarks.nothing_to_do [--images 8000]

In a copy of the project, the data stages run on small scenes of the sample; then the same command
runs again. DVC compares sizes and times of files, not their contents, so small ones will do.
"""

import argparse
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.machine import machine

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("cocoseg", "stages", "dvc.yaml", "params.yaml", ".dvcignore")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        project = Path(name)
        make_project(project, options.images)
        first = seconds(project)
        again = sorted(seconds(project) for _ in range(options.rounds))
        found = [len(list((project / "data" / kind).iterdir())) for kind in ("images", "masks")]
    print(machine("dvc"))
    print(f"{found[0]} images, {found[1]} masks: the data stages took {first:.1f} s")
    print("with nothing to do:", ", ".join(f"{value:.1f} s" for value in again))


def make_project(project: Path, images: int) -> None:
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, project / name)
    path = project / "params.yaml"
    params: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["download"]["sample"] |= {"images": images * 5 // 4, "width": 64, "height": 48}
    params["filter"]["max_images"] = images
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    for command in ("git init --quiet", "dvc init --quiet"):
        subprocess.run(command.split(), cwd=project, check=True)


def seconds(project: Path) -> float:
    started = time.perf_counter()
    command = ["dvc", "repro", "--quiet", "images", "mask", "split"]
    subprocess.run(command, cwd=project, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
