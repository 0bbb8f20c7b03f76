"""What a folder of images holds after it was updated, and what that cost in requests."""

import io
import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from cocoseg.coco.instances import ImageRecord, read_instances
from cocoseg.core.errors import UserError
from cocoseg.params.reader import CocoParams, SampleParams, load_params
from cocoseg.sources.coco_server import CocoSource
from cocoseg.sources.retry import RetryPolicy
from cocoseg.sources.source import ImagesReport, open_source, update_images
from cocoseg.sources.synthetic import SampleSource
from tests import ROOT
from tests import misbehaving_server as misbehave
from tests.misbehaving_server import MisbehavingServer

QUICK = RetryPolicy(tries=3, tries_damaged=2, backoff=0.002, longest_wait=0.05)
SAMPLE = SampleParams(images=6, width=64, height=48, seed=0)


def jpeg_bytes(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 50).save(buffer, "JPEG")
    return buffer.getvalue()


IMAGES = [ImageRecord(n, f"{n:012}.jpg", 60 + n, 40) for n in range(20)]


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    files = {f"/val2017/{i.file_name}": jpeg_bytes(i.width, i.height) for i in IMAGES}
    with MisbehavingServer(files) as running:
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


def test_a_dismissed_image_that_was_damaged_is_fetched_anew(
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


def test_damaged_and_foreign_files_are_replaced(server: MisbehavingServer, tmp_path: Path) -> None:
    source, directory = coco_source(server, tmp_path), tmp_path / "images"
    update_images(source, IMAGES, directory)
    truncated, foreign, empty = (directory / image.file_name for image in IMAGES[:3])
    truncated.write_bytes(truncated.read_bytes()[:-20])
    foreign.write_bytes(jpeg_bytes(99, 99))
    empty.write_bytes(b"")
    (directory / ".left by a killed run.jpg.tmp").write_bytes(b"half")
    (directory / "a folder").mkdir()
    server.requests.clear()
    assert update_images(source, IMAGES, directory) == ImagesReport(17, 3, 1)
    assert len(server.requests) == 3
    assert names_in(directory) == names_of(IMAGES)
    for image in IMAGES:
        content = server.files[f"/val2017/{image.file_name}"]
        assert (directory / image.file_name).read_bytes() == content


def test_after_a_failure_nothing_is_lost_and_only_the_failed_are_asked_for(
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


def test_links_into_a_read_only_cache_are_replaced_and_never_written_to(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    cache, directory = tmp_path / "cache", tmp_path / "images"
    cache.mkdir()
    directory.mkdir()
    for image in IMAGES[:2]:
        (cache / image.file_name).write_bytes(b"another picture")
        (cache / image.file_name).chmod(0o444)
    first, second = names_of(IMAGES[:2])
    (directory / first).symlink_to(cache / first)
    (directory / second).hardlink_to(cache / second)
    update_images(coco_source(server, tmp_path), IMAGES[:2], directory)
    for image in IMAGES[:2]:
        assert (cache / image.file_name).read_bytes() == b"another picture"
        content = server.files[f"/val2017/{image.file_name}"]
        assert (directory / image.file_name).read_bytes() == content


UPDATE = """
import sys
from pathlib import Path
from cocoseg.coco.instances import read_instances
from cocoseg.params.reader import CocoParams
from cocoseg.sources.coco_server import CocoSource
from cocoseg.sources.source import update_images
from cocoseg.core.stage import run_stage

def main():
    url, folder = sys.argv[1], Path(sys.argv[2])
    params = CocoParams(base_url=url, split="val2017", md5=None)
    source = CocoSource(params, connections=4, downloads=folder / "downloads")
    images = read_instances(folder / "selection.json").instances.images
    return update_images(source, images, folder / "images").figures()

run_stage(main, Path(sys.argv[2]) / "machine.json")
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_update_is_continued(
    server: MisbehavingServer, tmp_path: Path, number: signal.Signals
) -> None:
    directory = tmp_path / "images"
    listed = ",".join(
        f'{{"id": {i.id}, "file_name": "{i.file_name}", "width": {i.width}, "height": {i.height}}}'
        for i in IMAGES
    )
    (tmp_path / "selection.json").write_text(
        f'{{"images": [{listed}], "annotations": [], "categories": []}}'
    )
    server.faults = {path: iter([misbehave.stall_in_mid_body]) for path in list(server.files)[9:]}
    command = [sys.executable, "-c", UPDATE, server.url, str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    server.wait_for_requests(9 + 4)  # each of the four connections stands still
    process.send_signal(number)
    _, messages = process.communicate()
    assert process.returncode in (-number, 128 + number)
    assert "Traceback" not in messages
    whole = set(directory.glob("[0-9]*.jpg"))
    assert len(whole) == 9

    server.requests.clear()
    server.faults.clear()
    report = update_images(coco_source(server, tmp_path), IMAGES, directory)
    assert report == ImagesReport(len(whole), len(IMAGES) - len(whole), 0)
    # By name, as the server may have noted the killed process's last requests only now.
    missing = set(names_of(IMAGES)) - {path.name for path in whole}
    assert set(server.request_counts()) == {f"/val2017/{name}" for name in missing}
    assert names_in(directory) == names_of(IMAGES)


# --- Sample -------------------------------------------------------------------------------------


def sample_images(source: SampleSource, directory: Path) -> list[ImageRecord]:
    source.write_annotations(directory / "instances.json")
    return read_instances(directory / "instances.json").instances.images


def test_the_sample_is_the_same_whoever_draws_it(tmp_path: Path) -> None:
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


def test_sample_images_that_are_right_are_not_touched(tmp_path: Path) -> None:
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


def test_params_choose_the_source(tmp_path: Path) -> None:
    presets = ROOT / "presets"
    for name, kind in (("sample", SampleSource), ("coco_val2014", CocoSource)):
        source = open_source(load_params(presets / f"{name}.yaml"), tmp_path)
        assert isinstance(source, kind)
