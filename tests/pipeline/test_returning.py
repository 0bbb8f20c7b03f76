"""Returning to one's own parameters after an experiment with fewer images from a server."""

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cocoseg.coco.instances import ImageRecord
from tests.coco_files import CATEGORIES, annotation, image
from tests.misbehaving_server import MisbehavingServer, coco_files, jpeg_bytes

from .conftest import Project, dvc, make_project

pytestmark = [
    pytest.mark.xdist_group("returning"),
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # from dvc
]

NUMBER, FEWER = 12, 8


def start_server() -> MisbehavingServer:
    """A server of COCO's layout. Its images are noise: no two servers have the same."""
    entries = [image(id) for id in range(NUMBER)]
    document = {
        "images": entries,
        "annotations": [annotation(id, id) for id in range(NUMBER)],
        "categories": CATEGORIES,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("annotations/instances_val2017.json", json.dumps(document))
    images = [ImageRecord(**entry) for entry in entries]
    archives = {"/annotations/annotations_trainval2017.zip": buffer.getvalue()}
    return MisbehavingServer({**archives, **coco_files("val2017", images)})


@pytest.fixture(scope="module")
def server() -> Iterator[MisbehavingServer]:
    with start_server() as running:
        yield running


@pytest.fixture(scope="module")
def applied(server: MisbehavingServer, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of the stages up to `images`. An experiment with fewer images is applied."""
    project = make_project(tmp_path_factory.mktemp("applied") / "project")
    pipeline = project.directory / "dvc.yaml"
    stages = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"]
    first = {name: stages[name] for name in ("download", "filter", "images")}
    pipeline.write_text(yaml.safe_dump({"stages": first}), encoding="utf-8")
    project.set_params(
        {
            "download.source": "coco",
            "download.coco.base_url": server.url,
            "download.coco.split": "val2017",
            "download.coco.md5": None,
            "filter.classes": ["cat"],
        }
    )
    project.succeed("dvc", "repro")
    project.commit("a run")
    fewer = ("-S", f"filter.max_images={FEWER}")
    project.succeed("dvc", "exp", "run", "--temp", "--name", "fewer", *fewer)
    project.succeed("dvc", "exp", "apply", "fewer")
    assert len(project.results("data/images")) == FEWER
    project.succeed("git", "checkout", "params.yaml")
    return project


def served(server: MisbehavingServer) -> dict[str, bytes]:
    return {
        path.rpartition("/")[2]: content
        for path, content in server.files.items()
        if path.startswith("/val2017/")
    }


def images(project: Project) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project.directory / "data/images").iterdir()}


def test_images_come_from_the_cache_and_the_lock_is_the_committed_one(
    server: MisbehavingServer, applied: Project, tmp_path: Path
) -> None:
    project = applied.copy(tmp_path / "project")
    (project.directory / ".dvc/cache").rename(tmp_path / "cache")
    assert dvc(project, f"cache dir --local {tmp_path / 'cache'}") == 0
    server.requests.clear()
    project.succeed("dvc", "repro")
    assert server.requests == []
    assert images(project) == served(server)
    assert project.succeed("git", "status", "--porcelain") == ""


def test_a_damaged_file_of_the_cache_is_fetched_again(
    server: MisbehavingServer, applied: Project, tmp_path: Path
) -> None:
    project = applied.copy(tmp_path / "project")
    name, content = next((n, c) for n, c in served(server).items() if n not in images(project))
    md5 = hashlib.md5(content).hexdigest()
    cached = project.directory / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}"
    cached.unlink()
    cached.write_bytes(jpeg_bytes(20, 10))  # another image of the same size
    server.requests.clear()
    project.succeed("dvc", "repro")
    assert server.request_counts() == {f"/val2017/{name}": 1}
    assert images(project) == served(server)


def test_images_of_another_server_are_not_restored(applied: Project, tmp_path: Path) -> None:
    project = applied.copy(tmp_path / "project")
    shutil.rmtree(project.directory / "data/images")
    with start_server() as other:
        project.set_params({"download.coco.base_url": other.url})
        project.succeed("dvc", "repro")
        assert images(project) == served(other)
