"""Updates of the image directory: its content afterwards, and the requests it took."""

import itertools
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from cocoseg.coco.instances import ImageRecord, read_instances
from cocoseg.core.errors import UserError
from cocoseg.params.download import CocoParams, DownloadParams, SampleParams
from cocoseg.params.reader import load_params
from cocoseg.params.runtime import RuntimeParams
from cocoseg.sources.coco_server import CocoSource
from cocoseg.sources.local_files import FilesSource
from cocoseg.sources.retry import RetryPolicy
from cocoseg.sources.source import ImagesReport, open_source, update_images
from cocoseg.sources.synthetic import SampleSource
from tests import ROOT
from tests import misbehaving_server as misbehave
from tests.misbehaving_server import MisbehavingServer, coco_files, jpeg_bytes
from tests.processes import end_by_signal, start_program

QUICK = RetryPolicy(attempts=3, attempts_damaged=2, backoff=0.002, max_wait=0.05)
SAMPLE = SampleParams(images=6, width=64, height=48, seed=0)


IMAGES = [ImageRecord(n, f"{n:012}.jpg", 60 + n, 40) for n in range(20)]


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer(coco_files("val2017", IMAGES)) as running:
        yield running


def coco_source(server: MisbehavingServer, directory: Path) -> CocoSource:
    params = CocoParams(base_url=server.url, split="val2017", md5=None)
    return CocoSource(params, connections=4, downloads=directory / "downloads", policy=QUICK)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def names_of(images: list[ImageRecord]) -> list[str]:
    return [image.file_name for image in images]


# --- COCO ---------------------------------------------------------------------------------------


def test_selecting_more_fetches_only_the_new_images(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    source, directory = coco_source(server, tmp_path), tmp_path / "images"
    assert update_images(source, IMAGES[:8], directory) == ImagesReport(0, 8, 0)
    server.requests.clear()
    assert update_images(source, IMAGES[:12], directory) == ImagesReport(8, 4, 0)
    assert server.request_counts() == {f"/val2017/{i.file_name}": 1 for i in IMAGES[8:12]}
    assert names_in(directory) == names_of(IMAGES[:12])


def test_selecting_fewer_makes_no_request(server: MisbehavingServer, tmp_path: Path) -> None:
    source, directory = coco_source(server, tmp_path), tmp_path / "images"
    update_images(source, IMAGES, directory)
    server.requests.clear()
    assert update_images(source, IMAGES[5:8], directory) == ImagesReport(3, 0, 17)
    assert update_images(source, IMAGES[5:8], directory) == ImagesReport(3, 0, 0)
    assert server.requests == []
    assert names_in(directory) == names_of(IMAGES[5:8])


def test_returning_to_an_earlier_selection_makes_no_request(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    source, directory = coco_source(server, tmp_path), tmp_path / "images"
    update_images(source, IMAGES[:12], directory)
    before = contents(directory)
    update_images(source, IMAGES[:8], directory)
    server.requests.clear()
    assert update_images(source, IMAGES[:12], directory) == ImagesReport(8, 4, 0)
    assert server.requests == []
    assert contents(directory) == before


def test_a_damaged_discarded_image_is_fetched_again(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    source, directory = coco_source(server, tmp_path), tmp_path / "images"
    update_images(source, IMAGES[:2], directory)
    before = contents(directory)
    update_images(source, [], directory)
    discarded = tmp_path / "downloads" / "images" / IMAGES[0].file_name
    discarded.write_bytes(discarded.read_bytes()[:-20])
    server.requests.clear()
    update_images(source, IMAGES[:2], directory)
    assert server.request_counts() == {f"/val2017/{IMAGES[0].file_name}": 1}
    assert contents(directory) == before


def test_damaged_images_are_replaced_and_other_files_removed(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    source, directory = coco_source(server, tmp_path), tmp_path / "images"
    update_images(source, IMAGES, directory)
    truncated, resized, empty = (directory / image.file_name for image in IMAGES[:3])
    truncated.write_bytes(truncated.read_bytes()[:-20])
    resized.write_bytes(jpeg_bytes(99, 99))
    empty.write_bytes(b"")
    (directory / ".left by a killed run.jpg.tmp").write_bytes(b"half")
    (directory / "a directory").mkdir()
    server.requests.clear()
    assert update_images(source, IMAGES, directory) == ImagesReport(17, 3, 1)
    assert len(server.requests) == 3
    assert names_in(directory) == names_of(IMAGES)
    for image in IMAGES:
        content = server.files[f"/val2017/{image.file_name}"]
        assert (directory / image.file_name).read_bytes() == content


def test_after_a_failure_only_the_failed_images_are_requested(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    source, directory = coco_source(server, tmp_path), tmp_path / "images"
    update_images(source, IMAGES[:4], directory)
    for image in IMAGES[6:9]:
        server.faults[f"/val2017/{image.file_name}"] = itertools.repeat(misbehave.status(503))
    with pytest.raises(UserError, match="3 of 16 files"):
        update_images(source, IMAGES[4:], directory)
    assert names_in(directory) == names_of(IMAGES[:6] + IMAGES[9:])
    server.faults.clear()
    server.requests.clear()
    assert update_images(source, IMAGES[4:], directory) == ImagesReport(13, 3, 4)
    assert server.request_counts() == {f"/val2017/{i.file_name}": 1 for i in IMAGES[6:9]}


def test_links_into_a_read_only_cache_are_replaced_and_their_targets_unchanged(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    cache, directory = tmp_path / "cache", tmp_path / "images"
    cache.mkdir()
    directory.mkdir()
    for image in IMAGES[:2]:
        (cache / image.file_name).write_bytes(b"another image")
        (cache / image.file_name).chmod(0o444)
    first, second = names_of(IMAGES[:2])
    (directory / first).symlink_to(cache / first)
    (directory / second).hardlink_to(cache / second)
    update_images(coco_source(server, tmp_path), IMAGES[:2], directory)
    for image in IMAGES[:2]:
        assert (cache / image.file_name).read_bytes() == b"another image"
        content = server.files[f"/val2017/{image.file_name}"]
        assert (directory / image.file_name).read_bytes() == content


UPDATE = """
import sys
from pathlib import Path
from cocoseg.coco.instances import read_instances
from cocoseg.core.stage import run_stage
from cocoseg.params.download import CocoParams
from cocoseg.sources.coco_server import CocoSource
from cocoseg.sources.source import update_images

def main():
    url, directory = sys.argv[1], Path(sys.argv[2])
    params = CocoParams(base_url=url, split="val2017", md5=None)
    source = CocoSource(params, connections=4, downloads=directory / "downloads")
    images = read_instances(directory / "selection.json").instances.images
    return update_images(source, images, directory / "images").figures()

run_stage(main, Path(sys.argv[2]) / "machine.json")
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_update_keeps_the_images_that_it_fetched(
    server: MisbehavingServer, tmp_path: Path, number: signal.Signals
) -> None:
    directory = tmp_path / "images"
    entries = [msgspec.to_builtins(image) for image in IMAGES]
    selection = {"images": entries, "annotations": [], "categories": []}
    (tmp_path / "selection.json").write_text(json.dumps(selection))
    server.faults = {path: iter([misbehave.stall_in_mid_body]) for path in list(server.files)[9:]}
    process = start_program(UPDATE, server.url, str(tmp_path))
    server.wait_for_requests(9 + 4, process)  # then all four connections stall
    end_by_signal(process, number)
    fetched = {path.name for path in directory.glob("[0-9]*.jpg")}
    assert len(fetched) == 9

    server.requests.clear()
    server.faults.clear()
    report = update_images(coco_source(server, tmp_path), IMAGES, directory)
    assert report == ImagesReport(9, len(IMAGES) - 9, 0)
    # Names, not counts, because the server may record late requests of the killed process only now.
    missing = set(names_of(IMAGES)) - fetched
    assert set(server.request_counts()) == {f"/val2017/{name}" for name in missing}
    assert names_in(directory) == names_of(IMAGES)


# --- Sample -------------------------------------------------------------------------------------


def sample_images(source: SampleSource, directory: Path) -> list[ImageRecord]:
    source.write_annotations(directory / "instances.json")
    return read_instances(directory / "instances.json").instances.images


def test_the_sample_does_not_depend_on_the_processes_and_the_order_of_drawing(
    tmp_path: Path,
) -> None:
    images = sample_images(SampleSource(SAMPLE, workers=1), tmp_path)
    assert len(images) == 6
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert update_images(SampleSource(SAMPLE, workers=1), images, alone) == ImagesReport(0, 6, 0)
    assert update_images(SampleSource(SAMPLE, workers=2), images[::-1], together).fetched == 6
    assert contents(alone) == contents(together)
    for image in images:
        with Image.open(alone / image.file_name) as opened:
            assert opened.format == "JPEG"
            assert opened.size == (image.width, image.height) == (64, 48)


def test_valid_images_of_the_sample_are_not_replaced(tmp_path: Path) -> None:
    source, directory = SampleSource(SAMPLE, workers=1), tmp_path / "images"
    images = sample_images(source, tmp_path)
    update_images(source, images[:4], directory)
    (directory / images[0].file_name).write_bytes(b"damaged")
    before = {path.name: path.stat().st_ino for path in directory.iterdir()}
    assert update_images(source, images[:5], directory) == ImagesReport(3, 2, 0)
    for image in images[1:4]:
        assert (directory / image.file_name).stat().st_ino == before[image.file_name]


def test_another_seed_draws_other_images(tmp_path: Path) -> None:
    source, directory = SampleSource(SAMPLE, workers=1), tmp_path / "images"
    images = sample_images(source, tmp_path)
    update_images(source, images, directory)
    reseeded = SampleSource(SAMPLE.model_copy(update={"seed": 1}), workers=1)
    assert update_images(reseeded, images, directory) == ImagesReport(0, 6, 0)


@pytest.mark.parametrize(
    ("name", "kind"), [("sample", SampleSource), ("coco", CocoSource), ("files", FilesSource)]
)
def test_the_parameters_choose_the_source(tmp_path: Path, name: str, kind: type) -> None:
    params = load_params(ROOT / "params.yaml")
    download = params[DownloadParams].model_copy(update={"source": name})
    runtime = params[RuntimeParams].model_copy(update={"connections": 7})
    source = open_source(download, runtime, tmp_path)
    assert type(source) is kind
    assert source.params == getattr(download, name)
    if not isinstance(source, SampleSource):
        assert (source.connections, source.downloads) == (7, tmp_path)
