"""Annotations and images from a server with COCO's layout."""

import hashlib
import io
import itertools
import json
import random
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cocoseg.coco.instances import ImageRecord, read_instances
from cocoseg.core.errors import UserError
from cocoseg.sources.coco_server import download_annotations, download_images
from cocoseg.sources.retry import RetryPolicy
from tests import misbehaving_server as misbehave
from tests.mirror import MIRROR, needs_mirror
from tests.misbehaving_server import MisbehavingServer, coco_files, jpeg_bytes

QUICK = RetryPolicy(attempts=3, attempts_damaged=2, backoff=0.002, max_wait=0.05)
ARCHIVE = "/annotations/annotations_trainval2017.zip"
VAL = json.dumps({"images": [], "annotations": [], "categories": []})
TRAIN = json.dumps({"images": [], "annotations": [], "categories": [], "info": "train"})


def zip_bytes(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


GOOD = zip_bytes(
    {"annotations/instances_val2017.json": VAL, "annotations/instances_train2017.json": TRAIN}
)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer({ARCHIVE: GOOD}) as running:
        yield running


def fetch(url: str, directory: Path, split: str = "val2017", checksum: str | None = None) -> str:
    path = directory / "annotations" / "instances.json"
    download_annotations(url, split, checksum, directory / "downloads", path, policy=QUICK)
    return path.read_text(encoding="utf-8")


# --- Annotations --------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [None, md5(GOOD)], ids=["unchecked", "md5"])
def test_the_archive_is_downloaded_once_for_both_splits_of_a_year(
    server: MisbehavingServer, tmp_path: Path, checksum: str | None
) -> None:
    assert fetch(server.url, tmp_path, "val2017", checksum) == VAL
    assert fetch(server.url, tmp_path, "train2017", checksum) == TRAIN
    assert fetch(server.url + "/", tmp_path, "val2017", checksum) == VAL
    assert len(server.requests) == 1


def test_archives_of_different_servers_are_kept_apart(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    fetch(server.url, tmp_path)
    other = zip_bytes({"annotations/instances_val2017.json": TRAIN})
    with MisbehavingServer({ARCHIVE: other}) as second:
        assert fetch(second.url, tmp_path) == TRAIN


@pytest.mark.parametrize("checksum", [None, md5(GOOD)], ids=["unchecked", "md5"])
@pytest.mark.parametrize("damage", ["truncated", "overwritten", "empty"])
def test_a_damaged_archive_is_fetched_again(
    server: MisbehavingServer, tmp_path: Path, checksum: str | None, damage: str
) -> None:
    fetch(server.url, tmp_path, checksum=checksum)
    (archive,) = tmp_path.glob("downloads/*/*.zip")
    content = {
        "truncated": GOOD[:-50],
        "overwritten": GOOD[:60] + b"#" * 20 + GOOD[80:],
        "empty": b"",
    }
    archive.write_bytes(content[damage])
    assert fetch(server.url, tmp_path, checksum=checksum) == VAL
    assert len(server.requests) == 2


def test_a_changed_md5_fetches_the_archive_again(server: MisbehavingServer, tmp_path: Path) -> None:
    fetch(server.url, tmp_path)
    new = zip_bytes({"annotations/instances_val2017.json": TRAIN})
    server.files[ARCHIVE] = new
    assert fetch(server.url, tmp_path) == VAL
    assert fetch(server.url, tmp_path, checksum=md5(new)) == TRAIN


BAD_ARCHIVES = {
    "not a zip": (b"this is not an archive", "is not a valid zip archive: File is not a zip file"),
    "a web page": (b"<html>", "is not a valid zip archive"),
    "empty": (b"", "is not a valid zip archive"),
    "without the split": (
        zip_bytes({"annotations/instances_val2014.json": VAL}),
        "does not contain annotations/instances_val2017.json",
    ),
    "unsafe names": (
        zip_bytes(
            {
                "../../annotations/instances_val2017.json": VAL,
                "/annotations/instances_val2017.json": VAL,
                "annotations/../annotations/instances_val2017.json": VAL,
            }
        ),
        "does not contain annotations/instances_val2017.json",
    ),
    "wrong CRC": (GOOD[:60] + b"#" * 20 + GOOD[80:], "is not a valid zip archive"),
    "truncated": (GOOD[:-50], "is not a valid zip archive"),
}


@pytest.mark.parametrize(("content", "reason"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES.keys())
def test_an_invalid_archive_is_reported_in_one_line_and_removed(
    server: MisbehavingServer, tmp_path: Path, content: bytes, reason: str
) -> None:
    server.files[ARCHIVE] = content
    with pytest.raises(UserError) as caught:
        fetch(server.url, tmp_path)
    assert str(caught.value).startswith(f"{server.url}{ARCHIVE} {reason}")
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    server.files[ARCHIVE] = GOOD
    assert fetch(server.url, tmp_path) == VAL


def test_an_unsafe_name_in_an_archive_is_ignored(server: MisbehavingServer, tmp_path: Path) -> None:
    members = {"../../escaped.json": "x", "annotations/instances_val2017.json": VAL}
    server.files[ARCHIVE] = zip_bytes(members)
    assert fetch(server.url, tmp_path / "deep" / "directory") == VAL
    assert not list(tmp_path.rglob("*escaped*"))


def test_an_archive_with_changed_bytes_is_extracted_or_reported_in_one_line(tmp_path: Path) -> None:
    generator = random.Random(0)
    (tmp_path / "annotations").mkdir()
    archive = tmp_path / ARCHIVE[1:]
    outcomes = Counter[str]()
    for _ in range(300):
        content = bytearray(GOOD)
        for _ in range(generator.choice([1, 3])):
            content[generator.randrange(len(content))] = generator.randrange(256)
        archive.write_bytes(content)
        try:
            assert fetch(tmp_path.as_uri(), tmp_path / "out") == VAL
            outcomes["extracted"] += 1
        except UserError as error:
            assert "\n" not in str(error)
            outcomes["reported"] += 1
    assert min(outcomes["extracted"], outcomes["reported"]) > 30


def test_the_message_about_a_wrong_md5_contains_both(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"expected MD5 {'0' * 32}, got {md5(GOOD)}"):
        fetch(server.url, tmp_path, checksum="0" * 32)
    assert not list(tmp_path.rglob("*.zip*"))


def test_a_missing_archive_is_reported(server: MisbehavingServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"annotations_trainval2014\.zip: status 404 Not Found"):
        fetch(server.url, tmp_path, "val2014")


def test_a_changed_archive_of_a_local_mirror_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "mirror" / "annotations").mkdir(parents=True)
    archive = tmp_path / "mirror" / ARCHIVE[1:]
    for content in (VAL, TRAIN):
        archive.write_bytes(zip_bytes({"annotations/instances_val2017.json": content}))
        assert fetch((tmp_path / "mirror").as_uri(), tmp_path / "out") == content
    with pytest.raises(UserError, match="no such file or directory"):
        fetch((tmp_path / "no such directory").as_uri(), tmp_path / "out")


# --- Images -------------------------------------------------------------------------------------


IMAGES = [ImageRecord(n, f"an image {n} #%.jpg", 60 + n, 40) for n in range(8)]


@pytest.fixture
def image_server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer(coco_files("val2017", IMAGES)) as running:
        yield running


def test_only_the_given_images_are_requested(
    image_server: MisbehavingServer, tmp_path: Path
) -> None:
    given = IMAGES[2:5]
    download_images(image_server.url, "val2017", given, tmp_path, connections=2, policy=QUICK)
    assert image_server.request_counts() == {f"/val2017/{image.file_name}": 1 for image in given}
    for image in given:
        path = f"/val2017/{image.file_name}"
        assert (tmp_path / image.file_name).read_bytes() == image_server.files[path]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (jpeg_bytes(40, 63), "has 40 x 63 pixels, but its annotation says 63 x 40"),
        (jpeg_bytes(63, 40)[:-200], "is damaged: image file is truncated"),
        (b"", "is not a JPEG"),
        (b"<html>Sign in</html>", "is not a JPEG"),
    ],
    ids=["other size", "truncated", "empty", "web page"],
)
def test_an_invalid_image_is_reported_and_not_kept(
    image_server: MisbehavingServer, tmp_path: Path, content: bytes, reason: str
) -> None:
    name = IMAGES[3].file_name
    image_server.faults[f"/val2017/{name}"] = itertools.repeat(misbehave.serve_instead(content))
    with pytest.raises(UserError, match="1 of 8 files") as caught:
        download_images(image_server.url, "val2017", IMAGES, tmp_path, connections=2, policy=QUICK)
    assert "/val2017/an%20image%203%20%23%25.jpg: " + reason in str(caught.value)
    kept = {image.file_name for image in IMAGES} - {name}
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "b/a.jpg", "..", "", "a\\b.jpg", "a\0"])
def test_a_file_name_with_a_directory_is_refused_before_any_request(
    image_server: MisbehavingServer, tmp_path: Path, name: str
) -> None:
    images = [*IMAGES, ImageRecord(1, name, 60, 40)]
    with pytest.raises(UserError, match="expected a name without a directory"):
        download_images(image_server.url, "val2017", images, tmp_path, connections=1)
    assert image_server.requests == []


@needs_mirror
@pytest.mark.parametrize("scheme", ["http", "file"])
def test_the_images_of_the_mirror_of_coco_arrive_unchanged(tmp_path: Path, scheme: str) -> None:
    files = {ARCHIVE: (MIRROR / ARCHIVE[1:]).read_bytes()}
    files |= {f"/val2017/{p.name}": p.read_bytes() for p in (MIRROR / "val2017").iterdir()}
    with MisbehavingServer(files) as server:
        url = server.url if scheme == "http" else MIRROR.as_uri()
        fetch(url, tmp_path)
        path = tmp_path / "annotations" / "instances.json"
        images = read_instances(path).instances.images
        assert len(images) == 80
        download_images(url, "val2017", images, tmp_path / "images", connections=8)
    fetched = {path.name: path.read_bytes() for path in (tmp_path / "images").iterdir()}
    assert fetched == {i.file_name: files[f"/val2017/{i.file_name}"] for i in images}
