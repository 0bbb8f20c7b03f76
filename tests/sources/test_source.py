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

from cocoseg.annotations.instances import ImageRecord, read_instances
from cocoseg.common.errors import UserError
from cocoseg.common.params import CocoParams, SampleParams, load_params
from cocoseg.sources.attempt import Patience
from cocoseg.sources.coco import CocoSource
from cocoseg.sources.sample import SampleSource
from cocoseg.sources.source import ImagesReport, open_source, update_images
from tests import ROOT
from tests import misbehaving_server as misbehave
from tests.misbehaving_server import MisbehavingServer

QUICK = Patience(tries=3, tries_damaged=2, backoff=0.002, longest_wait=0.05)
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


def coco_source(server: MisbehavingServer, folder: Path) -> CocoSource:
    params = CocoParams(base_url=server.url, split="val2017", md5=None)
    return CocoSource(params, connections=4, downloads=folder / "downloads", patience=QUICK)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names_of(images: list[ImageRecord]) -> list[str]:
    return [image.file_name for image in images]


# --- COCO ---------------------------------------------------------------------------------------


def test_selecting_more_fetches_only_the_new_images(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    source, folder = coco_source(server, tmp_path), tmp_path / "images"
    assert update_images(source, IMAGES[:8], folder) == ImagesReport(0, 8, 0)
    server.requests.clear()
    assert update_images(source, IMAGES[:12], folder) == ImagesReport(8, 4, 0)
    assert server.request_counts() == {f"/val2017/{i.file_name}": 1 for i in IMAGES[8:12]}
    assert names_in(folder) == names_of(IMAGES[:12])


def test_selecting_fewer_makes_no_request(server: MisbehavingServer, tmp_path: Path) -> None:
    source, folder = coco_source(server, tmp_path), tmp_path / "images"
    update_images(source, IMAGES, folder)
    server.requests.clear()
    assert update_images(source, IMAGES[5:8], folder) == ImagesReport(3, 0, 17)
    assert update_images(source, IMAGES[5:8], folder) == ImagesReport(3, 0, 0)
    assert server.requests == []
    assert names_in(folder) == names_of(IMAGES[5:8])


def test_returning_to_an_earlier_selection_makes_no_request(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    source, folder = coco_source(server, tmp_path), tmp_path / "images"
    update_images(source, IMAGES[:12], folder)
    before = contents(folder)
    update_images(source, IMAGES[:8], folder)
    server.requests.clear()
    assert update_images(source, IMAGES[:12], folder) == ImagesReport(8, 4, 0)
    assert server.requests == []
    assert contents(folder) == before


def test_a_dismissed_image_that_was_damaged_is_fetched_anew(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    source, folder = coco_source(server, tmp_path), tmp_path / "images"
    update_images(source, IMAGES[:2], folder)
    before = contents(folder)
    update_images(source, [], folder)
    dismissed = tmp_path / "downloads" / "images" / IMAGES[0].file_name
    dismissed.write_bytes(dismissed.read_bytes()[:-20])
    server.requests.clear()
    update_images(source, IMAGES[:2], folder)
    assert server.request_counts() == {f"/val2017/{IMAGES[0].file_name}": 1}
    assert contents(folder) == before


def test_damaged_and_foreign_files_are_replaced(server: MisbehavingServer, tmp_path: Path) -> None:
    source, folder = coco_source(server, tmp_path), tmp_path / "images"
    update_images(source, IMAGES, folder)
    truncated, foreign, empty = (folder / image.file_name for image in IMAGES[:3])
    truncated.write_bytes(truncated.read_bytes()[:-20])
    foreign.write_bytes(jpeg_bytes(99, 99))
    empty.write_bytes(b"")
    (folder / ".left by a killed run.jpg.tmp").write_bytes(b"half")
    (folder / "a folder").mkdir()
    server.requests.clear()
    assert update_images(source, IMAGES, folder) == ImagesReport(17, 3, 1)
    assert len(server.requests) == 3
    assert names_in(folder) == names_of(IMAGES)
    for image in IMAGES:
        content = server.files[f"/val2017/{image.file_name}"]
        assert (folder / image.file_name).read_bytes() == content


def test_after_a_failure_nothing_is_lost_and_only_the_failed_are_asked_for(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    source, folder = coco_source(server, tmp_path), tmp_path / "images"
    update_images(source, IMAGES[:4], folder)
    for image in IMAGES[6:9]:
        server.faults[f"/val2017/{image.file_name}"] = itertools.repeat(misbehave.status(503))
    with pytest.raises(UserError, match="3 of 16 files"):
        update_images(source, IMAGES[4:], folder)
    assert names_in(folder) == names_of(IMAGES[:6] + IMAGES[9:])
    server.faults.clear()
    server.requests.clear()
    assert update_images(source, IMAGES[4:], folder) == ImagesReport(13, 3, 4)
    assert server.request_counts() == {f"/val2017/{i.file_name}": 1 for i in IMAGES[6:9]}


def test_links_into_a_read_only_cache_are_replaced_and_never_written_to(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    cache, folder = tmp_path / "cache", tmp_path / "images"
    cache.mkdir()
    folder.mkdir()
    for image in IMAGES[:2]:
        (cache / image.file_name).write_bytes(b"another picture")
        (cache / image.file_name).chmod(0o444)
    first, second = names_of(IMAGES[:2])
    (folder / first).symlink_to(cache / first)
    (folder / second).hardlink_to(cache / second)
    update_images(coco_source(server, tmp_path), IMAGES[:2], folder)
    for image in IMAGES[:2]:
        assert (cache / image.file_name).read_bytes() == b"another picture"
        content = server.files[f"/val2017/{image.file_name}"]
        assert (folder / image.file_name).read_bytes() == content


UPDATE = """
import sys
from pathlib import Path
from cocoseg.annotations.instances import read_instances
from cocoseg.common.params import CocoParams
from cocoseg.sources.coco import CocoSource
from cocoseg.sources.source import update_images
from cocoseg.common.stage import run_stage

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
    folder = tmp_path / "images"
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
    whole = set(folder.glob("[0-9]*.jpg"))
    assert len(whole) == 9

    server.requests.clear()
    server.faults.clear()
    report = update_images(coco_source(server, tmp_path), IMAGES, folder)
    assert report == ImagesReport(len(whole), len(IMAGES) - len(whole), 0)
    # By name, as the server may have noted the killed process's last requests only now.
    missing = set(names_of(IMAGES)) - {path.name for path in whole}
    assert set(server.request_counts()) == {f"/val2017/{name}" for name in missing}
    assert names_in(folder) == names_of(IMAGES)


# --- Sample -------------------------------------------------------------------------------------


def sample_images(source: SampleSource, folder: Path) -> list[ImageRecord]:
    source.write_annotations(folder / "instances.json")
    return read_instances(folder / "instances.json").instances.images


def test_the_sample_is_the_same_whoever_draws_it(tmp_path: Path) -> None:
    images = sample_images(SampleSource(SAMPLE, workers=1), tmp_path)
    assert len(images) == 6
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert update_images(SampleSource(SAMPLE, workers=1), images, alone) == ImagesReport(0, 6, 0)
    assert update_images(SampleSource(SAMPLE, workers=2), images[::-1], together).brought == 6
    assert contents(alone) == contents(together)
    for image in images:
        with Image.open(alone / image.file_name) as opened:
            assert opened.format == "JPEG"
            assert opened.size == (image.width, image.height) == (64, 48)


def test_sample_images_that_are_right_are_not_touched(tmp_path: Path) -> None:
    source, folder = SampleSource(SAMPLE, workers=1), tmp_path / "images"
    images = sample_images(source, tmp_path)
    update_images(source, images[:4], folder)
    (folder / images[0].file_name).write_bytes(b"damaged")
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert update_images(source, images[:5], folder) == ImagesReport(3, 2, 0)
    for image in images[1:4]:
        assert (folder / image.file_name).stat().st_ino == before[image.file_name]


def test_another_seed_draws_other_images(tmp_path: Path) -> None:
    source, folder = SampleSource(SAMPLE, workers=1), tmp_path / "images"
    images = sample_images(source, tmp_path)
    update_images(source, images, folder)
    reseeded = SampleSource(SAMPLE.model_copy(update={"seed": 1}), workers=1)
    assert update_images(reseeded, images, folder) == ImagesReport(0, 6, 0)


def test_params_choose_the_source(tmp_path: Path) -> None:
    presets = ROOT / "presets"
    for name, kind in (("sample", SampleSource), ("coco_val2014", CocoSource)):
        source = open_source(load_params(presets / f"{name}.yaml"), tmp_path)
        assert isinstance(source, kind)
