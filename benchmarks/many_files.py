"""What DVC takes with many images and masks, in several layouts of the same pipeline, in turns.

    python -m benchmarks.many_files [--images 57000] [--layouts files zip]

The project is dvc.yaml with commands that do nothing, beside small photos and masks of unique bytes:
DVC compares the sizes and times of files, and hashes small ones as it does large ones, so that the
time is DVC's own. `zip` has the masks in one archive; `list` lets later stages depend on a list of
the images' hashes in place of their folder; `zip+list` is both.
"""

import argparse
import hashlib
import io
import json
import logging
import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator
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

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("cocoseg", "stages", "params.yaml", ".dvcignore", "data/own", "data/exclude.csv")
SAID = "started"
"""A file that the first stage of `dvc exp run --temp` writes: the time at which it runs."""


@dataclass
class Cost:
    """What a command took: seconds that passed, and seconds of processor time."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=57_000)
    parser.add_argument("--layouts", nargs="+", default=["files", "zip"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--link", default="", help="a value for DVC's cache.type")
    parser.add_argument("--s3", action="store_true", help="push to an S3 stand-in, not to a folder")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds that S3's answers take")
    parser.add_argument("--jobs", type=int, help="connections to S3")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        s3_stand_in(options.delay) if options.s3 else nullcontext() as s3,
    ):
        projects = {
            layout: make_project(Path(name) / layout, layout, options.images)
            for layout in options.layouts
        }
        for project in projects.values():
            configure(project, s3, options.jobs, options.link)
        print(machine("dvc"), flush=True)
        print(f"{options.images} images and as many masks", flush=True)
        steps: dict[str, dict[str, list[Cost]]] = {}
        for step, runs in measure(projects, options.rounds):
            steps[step] = runs
            print(row(step, runs), flush=True)
        for layout, project in projects.items():
            print(layout, json.dumps(sizes(project)), flush=True)


def measure(
    projects: dict[str, Path], rounds: int
) -> Iterator[tuple[str, dict[str, list[Cost]]]]:
    """Each command in all projects, one after the other."""

    def all_run(command: str, *, rounds: int = 1, clone: bool = False) -> dict[str, list[Cost]]:
        runs: dict[str, list[Cost]] = {layout: [] for layout in projects}
        for _ in range(rounds):
            for layout, project in projects.items():
                folder = project.with_name(f"{project.name}-clone") if clone else project
                runs[layout].append(run(command, folder))
        return runs

    yield "first repro: hash and cache all", all_run("dvc repro -q")
    for project in projects.values():
        subprocess.run("git add -A && git commit -qm run", shell=True, cwd=project, check=True)
    yield "repro, nothing to do", all_run("dvc repro -q", rounds=rounds)
    yield "status", all_run("dvc status -q", rounds=rounds)
    yield "push masks", all_run("dvc push -q mask")
    yield "push the rest", all_run("dvc push -q")
    yield "push, nothing to do", all_run("dvc push -q", rounds=rounds)
    for project in projects.values():
        clone = ["git", "clone", "-q", project.name, f"{project.name}-clone"]
        subprocess.run(clone, cwd=project.parent, check=True)
    yield "pull masks into a clone", all_run("dvc pull -q mask", clone=True)
    yield "pull the rest", all_run("dvc pull -q", clone=True)
    yield "pull, nothing to do", all_run("dvc pull -q", clone=True, rounds=rounds)
    yield "repro in the clone", all_run("dvc repro -q", clone=True, rounds=rounds)
    starts: dict[str, list[Cost]] = {layout: [] for layout in projects}
    for layout, project in projects.items():
        started = time.time()
        cost = run("dvc exp run -q --temp -S report.title=other", project)
        starts[layout].append(Cost(float((project / SAID).read_text()) - started, cost.cpu))
    yield "exp run --temp, until a stage runs", starts
    for layout, project in projects.items():
        change(project, layout)
    yield "repro after 2% of the masks changed", all_run("dvc repro -q")
    yield "push of these", all_run("dvc push -q")


def run(command: str, folder: Path) -> Cost:
    before, started = os.times(), time.perf_counter()
    subprocess.run(command.split(), cwd=folder, check=True)
    wall, after = time.perf_counter() - started, os.times()
    user = after.children_user - before.children_user
    return Cost(wall, user + after.children_system - before.children_system)


def row(step: str, runs: dict[str, list[Cost]]) -> str:
    cells = []
    best = {layout: min(costs, key=lambda cost: cost.wall) for layout, costs in runs.items()}
    first = next(iter(best.values()))
    for layout, cost in best.items():
        cells.append(
            f"{layout}: {cost.wall:7.1f} s ({cost.cpu:6.1f} CPU, {first.cpu / cost.cpu:4.1f} times)"
        )
    return f"{step:36}" + "  ".join(cells)


def configure(project: Path, s3: str | None, jobs: int | None, link: str) -> None:
    """Set the remote, and how the workspace's files come from the cache."""
    remote = f"s3://bucket/{project.name}" if s3 else f"{project}-remote"
    for command in (
        f"dvc remote add --quiet --default remote {remote}",
        *([f"dvc remote modify remote endpointurl {s3}"] if s3 else []),
        *([f"dvc remote modify remote jobs {jobs}"] if jobs else []),
        *([f"dvc config cache.type {link}"] if link else []),
    ):
        subprocess.run(command.split(), cwd=project, check=True)


@contextmanager
def s3_stand_in(delay: float) -> Iterator[str]:
    """Run moto's S3 server on the loopback interface, slowed down; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    server = multiprocessing.get_context("spawn").Process(target=serve_s3, args=(port, delay))
    server.start()
    try:
        address = f"http://127.0.0.1:{port}"
        session = requests.Session()
        session.mount("http://", HTTPAdapter(max_retries=Retry(20, backoff_factor=0.1)))
        session.put(f"{address}/bucket", timeout=60).raise_for_status()
        yield address
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


def make_project(project: Path, layout: str, images: int) -> Path:
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, project / name)
    pipeline: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    for name, stage in pipeline["stages"].items():
        stage["cmd"] = "true"
        deps = stage["deps"]
        if "zip" in layout:
            deps[:] = [f"{d}.zip" if d == "data/masks" else d for d in deps]
        if "list" in layout:
            deps[:] = [f"{d}.json" if d == "data/images" else d for d in deps]
            if "zip" not in layout:
                deps[:] = [f"{d}.json" if d == "data/masks" else d for d in deps]
        for kind in ("outs", "metrics", "plots"):
            entries = [e if isinstance(e, dict) else {e: {}} for e in stage.get(kind, [])]
            if kind == "outs" and "list" in layout and name in ("images", "mask"):
                if name == "images" or "zip" not in layout:
                    entries.append({f"data/{'images' if name == 'images' else 'masks'}.json": {}})
            changed = []
            for entry in entries:
                ((path, how),) = entry.items()
                if path == "data/masks" and "zip" in layout:
                    path = "data/masks.zip"
                target = project / path
                target.parent.mkdir(parents=True, exist_ok=True)
                if path not in ("data/images", "data/masks", "data/masks.zip"):
                    target.write_text(f"{path}\n", encoding="utf-8")
                changed.append({path: {**how, "persist": True}})
            if changed:
                stage[kind] = changed
    pipeline["stages"]["report"]["cmd"] = (
        f"python -c \"import time; open('{project / SAID}', 'w').write(str(time.time()))\""
    )
    for name in ("train", "val", "test"):
        path = project / f"data/splits/{name}.txt"
        if path.parent.is_file():
            path.parent.unlink()
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False), encoding="utf-8")
    (project / "data/images").mkdir(parents=True)
    if "zip" not in layout:
        (project / "data/masks").mkdir()
    write_files(project, layout, images)
    for command in (
        "git init --quiet -b main",
        "git config user.name test",
        "git config user.email test@example.org",
        "dvc init --quiet",
    ):
        subprocess.run(command.split(), cwd=project, check=True)
    (project / ".gitignore").write_text("/started\n")
    return project


def write_files(project: Path, layout: str, images: int) -> None:
    random = np.random.default_rng(0)
    hashes: dict[str, dict[str, str]] = {"images": {}, "masks": {}}
    archive = zipfile.ZipFile(project / "data/masks.zip", "w") if "zip" in layout else None
    for index in range(images):
        stem = f"COCO_train2017_{index:012d}"
        photo = random.integers(0, 256, (24, 32, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, "JPEG")
        (project / "data/images" / f"{stem}.jpg").write_bytes(buffer.getvalue())
        hashes["images"][f"{stem}.jpg"] = hashlib.md5(buffer.getvalue()).hexdigest()
        content = mask_bytes(random)
        hashes["masks"][f"{stem}.png"] = hashlib.md5(content).hexdigest()
        if archive:
            archive.writestr(zipfile.ZipInfo(f"{stem}.png"), content)
        else:
            (project / "data/masks" / f"{stem}.png").write_bytes(content)
    if archive:
        archive.close()
    if "list" in layout:
        for name, of in hashes.items():
            (project / f"data/{name}.json").write_text(json.dumps(of, indent=0))


def mask_bytes(random: np.random.Generator) -> bytes:
    """A palette PNG of 3 kB, as a mask of COCO is."""
    mask = Image.fromarray(random.integers(0, 6, (60, 120), np.uint8), "P")
    mask.putpalette([0] * 768)
    buffer = io.BytesIO()
    mask.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def change(project: Path, layout: str) -> None:
    """Change 2% of the masks, as another threshold does."""
    random = np.random.default_rng(1)
    if "zip" in layout:
        path = project / "data/masks.zip"
        other = path.with_suffix(".tmp")
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
            for index, name in enumerate(old.namelist()):
                content = old.read(name) if index % 50 else mask_bytes(random)
                new.writestr(zipfile.ZipInfo(name), content)
        other.replace(path)
        return
    for index, path in enumerate(sorted((project / "data/masks").iterdir())):
        if index % 50 == 0:
            path.unlink()
            path.write_bytes(mask_bytes(random))


def sizes(project: Path) -> dict[str, str]:
    folders = {
        "workspace": project / "data",
        "cache": project / ".dvc/cache",
        "remote": project.with_name(f"{project.name}-remote"),
        "clone": project.with_name(f"{project.name}-clone"),
    }
    found = {}
    for name, folder in folders.items():
        if not folder.exists():  # the remote is S3
            continue
        used = subprocess.run(["du", "-sm", folder], capture_output=True, text=True).stdout.split()
        files = sum(len(files) for _, _, files in os.walk(folder))
        found[name] = f"{used[0]} MB, {files} files"
    return found


if __name__ == "__main__":
    main()
