"""Results do not depend on the machine, the user or the time."""

import datetime
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests import ROOT
from tests.check_lock import differing_outputs, missing_stages, output_hashes
from tests.contract import STAGES

from .conftest import Project, stages_run

pytestmark = pytest.mark.xdist_group("same_bytes")

ANOTHER_MACHINE = '''
"""Python imports this at startup: one core, a strict umask, another host name and file order."""

import os
import platform
import socket
import zlib

os.umask(0o077)
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
socket.gethostname = platform.node = lambda: "elsewhere-host"

listdir, scandir = os.listdir, os.scandir


def in_another_order(entries):
    return sorted(entries, key=lambda entry: zlib.crc32(os.fsencode(getattr(entry, "name", entry))))


class Scan:
    def __init__(self, path="."):
        with scandir(path) as entries:
            self.entries = iter(in_another_order(entries))

    def __iter__(self):
        return self.entries

    def __next__(self):
        return next(self.entries)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def close(self):
        pass


os.listdir = lambda path=".": in_another_order(listdir(path))
os.scandir = Scan
'''


@pytest.fixture(scope="module")
def elsewhere(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone of the finished project in which all stages ran again in a different environment."""
    directory = tmp_path_factory.mktemp("elsewhere")
    finished.succeed("git", "clone", "-q", str(finished.directory), str(directory / "project"))
    (directory / "python").mkdir()
    (directory / "python/sitecustomize.py").write_text(ANOTHER_MACHINE, encoding="utf-8")
    (directory / "home").mkdir()
    project = Project(directory / "project")
    project.set_params({"runtime.workers": 3, "runtime.connections": 1})
    project.succeed("dvc", "config", "--local", "cache.type", "symlink")
    images = project.directory / "data/images"
    images.mkdir(parents=True)
    # Some images exist already and are old; one is not part of the selection.
    for path in sorted((finished.directory / "data/images").iterdir(), reverse=True)[:15]:
        os.utime(shutil.copy(path, images), (1e9, 1e9))
    (images / "elsewhere.jpg").touch()
    output = project.succeed(
        "dvc",
        "repro",
        HOME=str(directory / "home"),
        LC_ALL="C",
        LOGNAME="elsewhere-user",
        PYTHONCOERCECLOCALE="0",
        PYTHONHASHSEED="12345",
        PYTHONPATH=str(directory / "python"),
        PYTHONUTF8="0",
        TZ="LINT-14",
        USER="elsewhere-user",
    )
    assert sorted(stages_run(output)) == sorted(STAGES)
    scores = project.directory / "metrics/test.json"
    assert scores.stat().st_mode & 0o077 == 0, "sitecustomize.py set the umask"
    return project


def read_lock(project: Project) -> str:
    return (project.directory / "dvc.lock").read_text(encoding="utf-8")


def output_files(project: Project) -> list[Path]:
    """All files that the stages wrote, except machine figures and the report."""
    paths = [
        project.directory / path
        for path in output_hashes(yaml.safe_load(read_lock(project)), STAGES)
    ]
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return sorted(file for file in files if file.is_file())


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "report"])
def test_a_stage_writes_the_same_bytes_elsewhere(
    finished: Project, elsewhere: Project, stage: str
) -> None:
    here, there = (
        output_hashes(yaml.safe_load(read_lock(project)), [stage])
        for project in (finished, elsewhere)
    )
    assert here
    assert there == here


def test_dvc_lock_is_the_same_elsewhere_except_machine_figures_and_the_report(
    finished: Project, elsewhere: Project
) -> None:
    paths = r"metrics/(?:machine(?:/\w+\.json)?|report\.html)"
    differs = rf"(path: {paths}\n +hash: md5\n) +md5: .*\n +size: .*\n"
    here, there = (re.sub(differs, r"\1", read_lock(project)) for project in (finished, elsewhere))
    assert there == here


def traces() -> list[bytes]:
    """Strings that would reveal the user, the machine, a directory or the day."""
    # The names of the clone's directory, the home, the user and the host contain `elsewhere`.
    names = ["elsewhere", f"{ROOT}/", "site-packages", "lib/python3"]
    today = datetime.datetime.now(datetime.UTC)
    for days in (-1, 0, 1):
        day = today + datetime.timedelta(days)
        forms = ("%Y-%m-%d", "%Y/%m/%d", "%Y:%m:%d", "%Y%m%d", "%b %d", "%d %b")
        names += [day.strftime(form) for form in forms]
    return [name.encode() for name in names]


def test_no_output_contains_a_path_a_user_or_a_date(elsewhere: Project) -> None:
    files = output_files(elsewhere)
    assert {"instances.json", "rejected.csv", "train.txt", "loss.tsv", "float32.onnx"} <= {
        path.name for path in files
    }
    # Now, in seconds since 1970: ten digits that do not follow a decimal point.
    stamps = {str(int(time.time()) - ago)[:5] for ago in (0, 3600)}
    seconds = re.compile(rf"[^\d.](?:{'|'.join(stamps)})\d{{5}}".encode())
    found = []
    for path in files:
        content = path.read_bytes()
        found += [(path.name, trace) for trace in traces() if trace in content]
        found += [(path.name, match) for match in seconds.findall(content)]
    assert found == []


def png_chunks(content: bytes) -> Iterator[bytes]:
    start = 8
    while start < len(content):
        yield content[start + 4 : start + 8]
        start += 12 + int.from_bytes(content[start : start + 4])


def jpeg_markers(content: bytes) -> Iterator[int]:
    start = 2
    while content[start + 1] != 0xDA:  # the pixels start here
        yield content[start + 1]
        start += 2 + int.from_bytes(content[start + 2 : start + 4])


def test_image_files_contain_no_time_text_or_exif(elsewhere: Project) -> None:
    chunks: set[bytes] = set()
    markers: set[int] = set()
    for path in output_files(elsewhere):
        if path.suffix == ".png":
            chunks |= set(png_chunks(path.read_bytes()))
        elif path.suffix == ".jpg":
            markers |= set(jpeg_markers(path.read_bytes()))
    jfif, tables, frame, huffman = 0xE0, 0xDB, 0xC0, 0xC4
    assert chunks == {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
    assert markers == {jfif, tables, frame, huffman}


def test_check_lock_names_the_outputs_that_differ(finished: Project) -> None:
    lock, other = (yaml.safe_load(read_lock(finished)) for _ in range(2))
    assert missing_stages(lock) == differing_outputs(lock, other) == []
    for stage in other["stages"].values():
        for out in stage["outs"]:
            if out["path"] in ("metrics/machine/mask.json", "metrics/test.json", "data/masks"):
                out["md5"] = "0" * 32
    assert differing_outputs(lock, other) == ["data/masks"]
    del other["stages"]["split"]
    assert missing_stages(other) == ["split"]
    assert differing_outputs(lock, other) == [
        "data/masks",
        "data/splits",
        "metrics/split.json",
    ]
