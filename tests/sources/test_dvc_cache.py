"""Restoring images of earlier runs from DVC's cache."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import yaml

from cocoseg.coco.instances import ImageRecord
from cocoseg.params.download import CocoParams, DownloadParams
from cocoseg.params.reader import load_params
from cocoseg.sources.dvc_cache import earlier_figures, restore_images
from tests import ROOT
from tests.misbehaving_server import jpeg_bytes

IMAGES = [ImageRecord(n, f"{n}.jpg", 20 + n, 10) for n in range(4)]
FIGURES = {"seconds": 1.5}
DIRECTORY = Path("data/images")
LOCK = Path("dvc.lock")
PARAMS = load_params(ROOT / "params.yaml")[DownloadParams].model_copy(
    update={
        "source": "coco",
        "coco": CocoParams(base_url="http://server.example", split="val2017", md5=None),
    }
)


def git(*arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, which is the current directory."""
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    Path(".dvc").mkdir()
    return tmp_path


def cache(content: bytes, suffix: str = "") -> str:
    """Add a file to DVC's cache and return its MD5."""
    md5 = hashlib.md5(content).hexdigest() + suffix
    path = Path(".dvc/cache/files/md5", md5[:2], md5[2:])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5


def write_lock(images: list[ImageRecord]) -> dict[str, bytes]:
    """Write the `dvc.lock` of a run with new images, which are in the cache; return the images."""
    contents = {image.file_name: jpeg_bytes(image.width, image.height) for image in images}
    listing = [{"md5": cache(content), "relpath": name} for name, content in contents.items()]
    outs = {
        "data/images": cache(json.dumps(listing).encode(), ".dir"),
        "metrics/machine/images.json": cache(json.dumps(FIGURES).encode()),
    }
    stage = {
        "params": {"params.yaml": {"download": PARAMS.model_dump()}},
        "outs": [{"path": path, "md5": md5} for path, md5 in outs.items()],
    }
    LOCK.write_text(yaml.safe_dump({"schema": "2.0", "stages": {"images": stage}}))
    return contents


def restored() -> dict[str, bytes]:
    restore_images(IMAGES, DIRECTORY, PARAMS)
    return {path.name: path.read_bytes() for path in DIRECTORY.glob("*")}


def test_images_of_several_commits_and_of_the_workspace_are_restored(project: Path) -> None:
    committed: dict[str, bytes] = {}
    for image in IMAGES[:2]:
        committed |= write_lock([image])
        git("add", "dvc.lock")
        git("commit", "-qm", "a run")
    assert restored() == committed
    uncommitted = write_lock(IMAGES[2:3])
    assert restored() == committed | uncommitted


def test_a_lock_with_conflicts_is_skipped(project: Path) -> None:
    committed = write_lock(IMAGES)
    git("add", "dvc.lock")
    git("commit", "-qm", "a run")
    text = LOCK.read_text()
    LOCK.write_text(text.replace("    outs:\n", "<<<<<<< HEAD\n    outs:\n"))
    assert restored() == committed


def test_images_that_the_cache_lacks_are_missing(project: Path) -> None:
    contents = write_lock(IMAGES)
    md5 = hashlib.md5(contents.pop("0.jpg")).hexdigest()
    Path(".dvc/cache/files/md5", md5[:2], md5[2:]).unlink()
    assert restored() == contents


def test_figures_are_those_of_the_run_with_exactly_these_images(project: Path) -> None:
    contents = write_lock(IMAGES)
    restored()
    assert earlier_figures(DIRECTORY) == FIGURES
    (DIRECTORY / "0.jpg").write_bytes(contents["1.jpg"])
    assert earlier_figures(DIRECTORY) is None
    (DIRECTORY / "0.jpg").unlink()
    assert earlier_figures(DIRECTORY) is None


def test_without_git_and_dvc_nothing_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert restored() == {}
    DIRECTORY.mkdir(parents=True)
    assert earlier_figures(DIRECTORY) is None
