"""Time DVC with many images and masks, in several layouts of the same pipeline, in turns.

    python -m benchmarks.many_files [--images 8000] [--variants files zip] [--s3]

A project has the stages of dvc.yaml with commands that do nothing, small images, and masks of about
the size of COCO's (3 kB). The time is DVC's own: it compares sizes and times of files, and copies
small files about as fast as large ones. A variant is one of `LAYOUTS`, optionally with DVC's
`cache.type` or a number of connections: `files+hardlink`, `files+64`.
"""

import argparse
import hashlib
import io
import logging
import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
import yaml
from PIL import Image
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from benchmarks.machine import machine
from cocoseg.core.labels import PALETTE

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("cocoseg", "stages", "params.yaml", ".dvcignore", "data/own", "data/exclude.csv")

LAYOUTS = {
    "files": ("data/images", "data/masks"),
    "zip": ("data/images", "data/masks.zip"),
    "list": ("data/images.md5", "data/masks.zip"),
    "zips": ("data/images.zip", "data/masks.zip"),
}
"""The images and masks on which stages depend: a directory, an archive, or a list of the hashes of
the files in the directory beside it."""


@dataclass(frozen=True)
class Project:
    """A Git and DVC project; its name starts with its layout."""

    directory: Path

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def layout(self) -> tuple[str, str]:
        return LAYOUTS[self.name.partition("+")[0]]

    @property
    def clone(self) -> "Project":
        return Project(self.directory.parent / "clones" / self.name)

    @property
    def remote(self) -> Path:
        return self.directory.parent / "remotes" / self.name

    def run(self, command: str) -> "Cost":
        before, started = os.times(), time.perf_counter()
        subprocess.run(command, cwd=self.directory, shell=True, check=True)
        wall, after = time.perf_counter() - started, os.times()
        user = after.children_user - before.children_user
        return Cost(wall, user + after.children_system - before.children_system)


@dataclass(frozen=True)
class Cost:
    """Wall-clock seconds and CPU seconds."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--variants", nargs="+", default=["files", "zip"])
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of repeatable commands")
    parser.add_argument(
        "--s3", action="store_true", help="push to a local S3 server, not to a directory"
    )
    parser.add_argument(
        "--delay", type=float, default=0.05, help="seconds before each answer of the S3 server"
    )
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        s3_server(options.delay) if options.s3 else nullcontext() as s3,
    ):
        projects = [Project(Path(name) / variant) for variant in options.variants]
        for project in projects:
            make_project(project, options.images)
            configure(project, s3)
        print(machine("dvc"))
        print(f"{options.images} images and as many masks; seconds (CPU seconds)")
        print("|".join(["", " ", *(f" {project.name} " for project in projects), ""]))
        print("|" + "---|" * (1 + len(projects)), flush=True)
        for step, costs in measure(projects, options.rounds):
            print(row(step, costs, by="wall" if s3 else "cpu"), flush=True)
        for name, directories in (
            ("images, masks and the rest in `data/`", [p.directory / "data" for p in projects]),
            ("DVC's cache", [p.directory / ".dvc/cache" for p in projects]),
        ):
            print(
                "|".join([f"| {name} ", *(f" {size(directory)} " for directory in directories), ""])
            )


def row(step: str, costs: Sequence[Cost], by: str) -> str:
    """A line of a Markdown table: the times, and the ratio of the first to each other one."""
    first = getattr(costs[0], by)
    ratios = ["", *(f", {first / getattr(cost, by):.1f} times" for cost in costs[1:])]
    cells = [f"{c.wall:.1f} s ({c.cpu:.1f}){r}" for c, r in zip(costs, ratios, strict=True)]
    return "| " + " | ".join([step, *cells]) + " |"


def measure(projects: Sequence[Project], rounds: int) -> Iterator[tuple[str, list[Cost]]]:
    """The lowest cost of each command in each project; the projects take turns."""

    def least(command: str, repeat: int = 1, *, clone: bool = False) -> list[Cost]:
        found = [[(p.clone if clone else p).run(command) for p in projects] for _ in range(repeat)]
        return [min(costs, key=lambda cost: cost.wall) for costs in zip(*found, strict=True)]

    yield "first `dvc repro`: hash and cache all", least("dvc repro -q")
    for project in projects:
        project.run("git add -A && git commit -qm run")
    yield "`dvc repro`, nothing to do", least("dvc repro -q", rounds)
    yield "`dvc repro --single-item train`, nothing to do", least("dvc repro -q -s train", rounds)
    yield "`dvc status`", least("dvc status -q", rounds)
    yield "`dvc push mask`", least("dvc push -q mask")
    yield "`dvc push`, everything else", least("dvc push -q")
    yield "`dvc push`, nothing to do", least("dvc push -q", rounds)
    for project in projects:
        project.run(f"git clone -q . {project.clone.directory}")
    yield "`dvc pull mask` into a clone", least("dvc pull -q mask", clone=True)
    yield "`dvc pull`, everything else", least("dvc pull -q", clone=True)
    yield "`dvc pull`, nothing to do", least("dvc pull -q", rounds, clone=True)
    yield "`dvc exp run --temp`, until a stage runs", [start_of_experiment(p) for p in projects]
    for project in projects:
        change_masks(project)
    yield "`dvc repro` after 2% of the masks changed", least("dvc repro -q")
    yield "`dvc push` of these", least("dvc push -q")


def start_of_experiment(project: Project) -> Cost:
    """The cost until the last stage runs, which touches a file outside the project."""
    signal = project.directory.parent / "signal"
    started = time.time()
    cost = project.run(f"SIGNAL={signal} dvc exp run -q --temp -S report.title=other")
    return Cost(signal.stat().st_mtime - started, cost.cpu)


def size(directory: Path) -> str:
    used = subprocess.run(["du", "-sm", directory], capture_output=True, text=True).stdout.split()[
        0
    ]
    return f"{used} MB, {sum(len(files) for _, _, files in os.walk(directory))} files"


def make_project(project: Project, images: int) -> None:
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (project.directory / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, project.directory / name)
    random = np.random.default_rng(0)
    jpegs = ((f"{stem:012d}.jpg", jpeg_bytes(random)) for stem in range(images))
    masks = ((f"{stem:012d}.png", mask_bytes(random)) for stem in range(images))
    for path, files in zip(project.layout, (jpegs, masks), strict=True):
        write_files(project.directory / path, files)
    write_pipeline(project)
    project.run("git init -q -b main && dvc init -q")
    project.run("git config user.name test && git config user.email test@example.org")


def write_files(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write files of these names and contents in the layout that the extension of `path` gives."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files:
                archive.writestr(zipfile.ZipInfo(name), content)
        return
    directory = path.with_suffix("")
    directory.mkdir()
    hashes = []
    for name, content in files:
        (directory / name).write_bytes(content)
        hashes.append(f"{hashlib.md5(content).hexdigest()} {name}\n")
    if path.suffix:
        path.write_text("".join(hashes), encoding="utf-8")


def jpeg_bytes(random: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def mask_bytes(random: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    mask = Image.fromarray(random.integers(0, 6, (53, 100), np.uint8), "P")
    mask.putpalette(PALETTE.tobytes())
    mask.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def change_masks(project: Project) -> None:
    """Replace every 50th mask."""
    random = np.random.default_rng(1)
    path = project.directory / project.layout[1]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            files = [(name, archive.read(name)) for name in archive.namelist()]
        path.unlink()  # it may be a link to the cache
        write_files(
            path, ((n, c if i % 50 else mask_bytes(random)) for i, (n, c) in enumerate(files))
        )
        return
    for file in sorted(path.iterdir())[::50]:
        file.unlink()
        file.write_bytes(mask_bytes(random))


def write_pipeline(project: Project) -> None:
    """Write dvc.yaml without its commands, and each missing file that it names."""
    pipeline: Any = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    read_as = dict(zip(LAYOUTS["files"], project.layout, strict=True))
    named: set[str] = set()
    for stage in pipeline["stages"].values():
        stage["cmd"] = 'if test -n "$SIGNAL"; then touch "$SIGNAL"; fi'
        stage["deps"] = [read_as.get(dep, dep) for dep in stage["deps"]]
        named |= {dep for dep in stage["deps"] if not dep.startswith("$")}
        for kind in ("outs", "metrics", "plots"):
            outputs: dict[str, Any] = {}
            for output in stage.get(kind, []):
                ((path, how),) = (output if isinstance(output, dict) else {output: {}}).items()
                read = str(read_as.get(path, path))
                # A list is beside its directory; an archive replaces it.
                for written in {read} if read.endswith(".zip") else {path, read}:
                    outputs[written] = {**how, "persist": True}
            if outputs:
                stage[kind] = [{path: outputs[path]} for path in sorted(outputs)]
                named |= set(outputs)
    for path in sorted(named, reverse=True):  # files of a directory come before it
        if not (project.directory / path).exists():
            (project.directory / path).parent.mkdir(parents=True, exist_ok=True)
            (project.directory / path).write_text(path, encoding="utf-8")
    text = yaml.safe_dump(pipeline, sort_keys=False)
    (project.directory / "dvc.yaml").write_text(text, encoding="utf-8")


def configure(project: Project, s3: str | None) -> None:
    """Set the remote, and the option after the layout in the variant's name."""
    _, _, option = project.name.partition("+")
    remote = f"s3://bucket/{project.name}" if s3 else project.remote
    project.run(f"dvc remote add -q --default remote {remote}")
    if s3:
        project.run(f"dvc remote modify remote endpointurl {s3}")
    if option.isdigit():
        project.run(f"dvc remote modify remote jobs {option}")
    elif option:
        project.run(f"dvc config cache.type {option}")


@contextmanager
def s3_server(delay: float) -> Iterator[str]:
    """Run moto's S3 server on the loopback interface with delayed answers; yields its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    server = multiprocessing.get_context("spawn").Process(target=serve_s3, args=(port, delay))
    server.start()
    try:
        url = f"http://127.0.0.1:{port}"
        session = requests.Session()
        session.mount("http://", HTTPAdapter(max_retries=Retry(20, backoff_factor=0.1)))
        session.put(f"{url}/bucket", timeout=60).raise_for_status()
        yield url
    finally:
        server.terminate()


def serve_s3(port: int, delay: float) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = DomainDispatcherApplication(create_backend_app)

    def delayed(environ: Any, start_response: Any) -> Any:
        time.sleep(delay)
        return application(environ, start_response)

    run_simple("127.0.0.1", port, delayed, threaded=True)


if __name__ == "__main__":
    main()
