"""Files of editors, file managers and Git change no result and rerun no stage."""

import subprocess
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from dvc.repo import Repo

from tests import ROOT

from .conftest import Project, dvc, stages_run

pytestmark = [
    pytest.mark.xdist_group("pipeline"),
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # from dvc
]

ANYWHERE = (
    *(".DS_Store", "Thumbs.db", "desktop.ini", ".nfs00000000000a4d5200000017"),
    *(".ipynb_checkpoints/x-checkpoint.py", "__pycache__/x.cpython-311.pyc"),
    *("x.json~", "#x.json#", ".x.json.swp"),
)
"""Names that no image and no annotation file has."""

IN_CODE = (
    *("#x.py#", ".x.py.swp", "x.py~", "x.orig", "x.py.orig", "x.rej", "._x.py", "4913"),
    *(".idea/x.xml", "Untitled.ipynb", ".mypy_cache/x.json", "core.1234", "profile.prof"),
)
"""Names that could be those of images in data."""

DATA = (
    *("data/own", "data/images", "data/masks", "data/splits", "data/predictions", "models/onnx"),
    *("metrics/plots", "metrics/examples", "metrics/train/plots/metrics"),
)


def write_strays(directory: Path, names: tuple[str, ...], lock: str) -> None:
    """Write files, and a lock of Emacs, a link to nothing."""
    for name in names:
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"stray")
    (directory / lock).symlink_to("user@host.1234:5678")


def test_stray_files_in_packages_and_data_rerun_no_stage(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    packages = {path.parent for path in (project.directory / "cocoseg").glob("*/**/*.py")}
    assert len(packages) > 12
    for package in packages:
        write_strays(package, ANYWHERE + IN_CODE, ".#x.py")
    for name in DATA:
        write_strays(project.directory / name, ANYWHERE, ".#x.json")
    assert dvc(project, "status") == 0
    assert capfd.readouterr().out == "Data and pipelines are up to date.\n"


def test_a_stage_removes_stray_files_from_its_output(project: Project) -> None:
    before = project.results("data", "models")
    for name in ("data/images", "data/masks"):
        for stray in ("x.jpg~", "x.jpg.orig", ".DS_Store"):
            (project.directory / name / stray).write_bytes(b"stray")
    assert stages_run(project.succeed("dvc", "repro", "train")) == ["images"]
    assert project.results("data", "models") == before


@pytest.fixture(scope="module")
def here() -> Iterator[Repo]:
    with chdir(ROOT), Repo() as repo:
        yield repo


@pytest.mark.parametrize("directory", ["data/own/farm/images", "data/images", "farm"])
def test_no_image_and_no_annotation_file_is_ignored(here: Repo, directory: str) -> None:
    for name in (
        *("a.jpg~", "._a.jpg", ".#a.jpg", "#a#.png", "a.orig", ".a.swp", ".nfs.jpg", "core"),
        *("annotations.json", ".hidden.json", "#1.json", "thumbs.jpg", "x.json.gz"),
    ):
        assert not here.dvcignore.is_ignored_file(str(ROOT / directory / name)), name


def test_every_tracked_file_of_a_package_counts(here: Repo) -> None:
    listed = ["git", "ls-files", "cocoseg"]
    printed = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = printed.splitlines()
    assert len(names) > 90
    assert [name for name in names if here.dvcignore.is_ignored_file(str(ROOT / name))] == []


def test_a_clone_with_windows_line_ends_has_no_changed_file_and_no_stale_stage(
    project: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = b"image_id,annotation_id\r\n"  # as spreadsheet programs write it
    (project.directory / "data/other.csv").write_bytes(content)
    project.commit("another file for filter.exclude")
    clone = Project(tmp_path / "clone")
    cache = str(project.directory / ".dvc/cache")
    options = ("-q", "--config", "core.autocrlf=true")
    project.succeed("git", "clone", *options, str(project.directory), str(clone.directory))
    clone.succeed("dvc", "cache", "dir", "--local", cache)
    clone.succeed("dvc", "checkout", "-q")
    assert clone.succeed("git", "status", "--porcelain") == ""
    assert (clone.directory / "data/other.csv").read_bytes() == content
    assert dvc(clone, "status") == 0
    assert capfd.readouterr().out == "Data and pipelines are up to date.\n"
    assert b"\r" not in (clone.directory / ".ci/compare").read_bytes()
