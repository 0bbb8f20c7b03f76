"""The COCO server's layout: archives that are kept, and images that are checked."""

import hashlib
import io
import itertools
import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from cocoseg.coco.instances import ImageRecord, read_instances
from cocoseg.core.errors import UserError
from cocoseg.sources.coco_server import download_annotations, download_images
from cocoseg.sources.retry import RetryPolicy
from tests import ROOT
from tests import misbehaving_server as misbehave
from tests.misbehaving_server import MisbehavingServer

MIRROR = ROOT.parent / "shared" / "coco-mirror"
needs_mirror = pytest.mark.skipif(not MIRROR.is_dir(), reason=f"{MIRROR} is not on this machine")

QUICK = RetryPolicy(tries=3, tries_damaged=2, backoff=0.002, longest_wait=0.05)
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
def test_another_split_of_the_year_needs_no_second_download(
    server: MisbehavingServer, tmp_path: Path, checksum: str | None
) -> None:
    assert fetch(server.url, tmp_path, "val2017", checksum) == VAL
    assert fetch(server.url, tmp_path, "train2017", checksum) == TRAIN
    assert fetch(server.url + "/", tmp_path, "val2017", checksum) == VAL
    assert len(server.requests) == 1


def test_another_server_is_another_archive(server: MisbehavingServer, tmp_path: Path) -> None:
    fetch(server.url, tmp_path)
    other = zip_bytes({"annotations/instances_val2017.json": TRAIN})
    with MisbehavingServer({ARCHIVE: other}) as second:
        assert fetch(second.url, tmp_path) == TRAIN


@pytest.mark.parametrize("checksum", [None, md5(GOOD)], ids=["unchecked", "md5"])
@pytest.mark.parametrize("damage", ["truncated", "overwritten", "empty"])
def test_a_kept_archive_that_was_damaged_is_fetched_anew(
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


def test_a_changed_md5_fetches_the_archive_anew(server: MisbehavingServer, tmp_path: Path) -> None:
    fetch(server.url, tmp_path)
    new = zip_bytes({"annotations/instances_val2017.json": TRAIN})
    server.files[ARCHIVE] = new
    assert fetch(server.url, tmp_path) == VAL
    assert fetch(server.url, tmp_path, checksum=md5(new)) == TRAIN


BAD_ARCHIVES = {
    "no zip": (b"this is no archive", "is no sound zip archive: File is not a zip file"),
    "a web page": (b"<html>", "is no sound zip archive"),
    "empty": (b"", "is no sound zip archive"),
    "without the split": (
        zip_bytes({"annotations/instances_val2014.json": VAL}),
        "does not hold annotations/instances_val2017.json",
    ),
    "climbing names": (
        zip_bytes(
            {
                "../../annotations/instances_val2017.json": VAL,
                "/annotations/instances_val2017.json": VAL,
                "annotations/../annotations/instances_val2017.json": VAL,
            }
        ),
        "does not hold annotations/instances_val2017.json",
    ),
    "wrong CRC": (GOOD[:60] + b"#" * 20 + GOOD[80:], "is no sound zip archive"),
    "truncated": (GOOD[:-50], "is no sound zip archive"),
}


@pytest.mark.parametrize(("content", "reason"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES.keys())
def test_a_bad_archive_is_one_line_and_does_not_stay(
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


def test_a_climbing_name_beside_the_right_one_is_not_touched(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    members = {"../../escaped.json": "x", "annotations/instances_val2017.json": VAL}
    server.files[ARCHIVE] = zip_bytes(members)
    assert fetch(server.url, tmp_path / "deep" / "folder") == VAL
    assert not list(tmp_path.rglob("*escaped*"))


def test_archives_with_mutated_bytes_give_the_member_or_one_line(tmp_path: Path) -> None:
    generator = random.Random(0)
    (tmp_path / "annotations").mkdir()
    archive = tmp_path / ARCHIVE[1:]
    for _ in range(300):
        content = bytearray(GOOD)
        for _ in range(generator.choice([1, 3])):
            content[generator.randrange(len(content))] = generator.randrange(256)
        archive.write_bytes(content)
        try:
            fetch(tmp_path.as_uri(), tmp_path / "out")
        except UserError as error:
            assert "\n" not in str(error)


def test_a_wrong_md5_names_both(server: MisbehavingServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{md5(GOOD)} instead of {'0' * 32}"):
        fetch(server.url, tmp_path, checksum="0" * 32)
    assert not list(tmp_path.rglob("*.zip*"))


def test_an_absent_archive_is_one_line(server: MisbehavingServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"annotations_trainval2014\.zip: status 404 Not Found"):
        fetch(server.url, tmp_path, "val2014")


def test_annotations_of_a_local_mirror_are_not_stale(tmp_path: Path) -> None:
    (tmp_path / "mirror" / "annotations").mkdir(parents=True)
    archive = tmp_path / "mirror" / ARCHIVE[1:]
    for content in (VAL, TRAIN):
        archive.write_bytes(zip_bytes({"annotations/instances_val2017.json": content}))
        assert fetch((tmp_path / "mirror").as_uri(), tmp_path / "out") == content
    with pytest.raises(UserError, match="no such file or directory"):
        fetch((tmp_path / "no such folder").as_uri(), tmp_path / "out")


# --- Images -------------------------------------------------------------------------------------


def jpeg_bytes(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 50).save(buffer, "JPEG")
    return buffer.getvalue()


def records(count: int) -> list[ImageRecord]:
    return [ImageRecord(n, f"a photo {n} #%.jpg", 60 + n, 40) for n in range(count)]


@pytest.fixture
def photos() -> Iterator[MisbehavingServer]:
    files = {f"/val2017/{r.file_name}": jpeg_bytes(r.width, r.height) for r in records(8)}
    with MisbehavingServer(files) as running:
        yield running


def test_only_the_wanted_images_are_asked_for(photos: MisbehavingServer, tmp_path: Path) -> None:
    wanted = records(8)[2:5]
    download_images(photos.url, "val2017", wanted, tmp_path, connections=2, policy=QUICK)
    assert photos.request_counts() == {f"/val2017/{record.file_name}": 1 for record in wanted}
    for record in wanted:
        path = f"/val2017/{record.file_name}"
        assert (tmp_path / record.file_name).read_bytes() == photos.files[path]


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
def test_a_wrong_image_is_named_and_never_kept(
    photos: MisbehavingServer, tmp_path: Path, content: bytes, reason: str
) -> None:
    name = records(8)[3].file_name
    photos.defects[f"/val2017/{name}"] = itertools.repeat(misbehave.serve_instead(content))
    with pytest.raises(UserError, match="1 of 8 files") as caught:
        download_images(photos.url, "val2017", records(8), tmp_path, connections=2, policy=QUICK)
    assert "/val2017/a%20photo%203%20%23%25.jpg: " + reason in str(caught.value)
    assert len(list(tmp_path.iterdir())) == 7
    photos.defects.clear()
    download_images(photos.url, "val2017", records(8), tmp_path, connections=2, policy=QUICK)


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "b/a.jpg", "..", "", "a\\b.jpg", "a\0"])
def test_a_file_name_that_leaves_the_folder_is_refused(
    photos: MisbehavingServer, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UserError, match="no plain name"):
        download_images(
            photos.url, "val2017", [ImageRecord(1, name, 60, 40)], tmp_path, connections=1
        )
    assert photos.requests == []


@needs_mirror
@pytest.mark.parametrize("scheme", ["http", "file"])
def test_the_real_mirror_gives_real_images(tmp_path: Path, scheme: str) -> None:
    files = {ARCHIVE: (MIRROR / ARCHIVE[1:]).read_bytes()}
    files |= {f"/val2017/{p.name}": p.read_bytes() for p in (MIRROR / "val2017").iterdir()}
    with MisbehavingServer(files) as server:
        url = server.url if scheme == "http" else MIRROR.as_uri()
        fetch(url, tmp_path)
        path = tmp_path / "annotations" / "instances.json"
        images = read_instances(path).instances.images
        assert len(images) == 80
        download_images(url, "val2017", images, tmp_path / "images", connections=8)
    for path in (tmp_path / "images").iterdir():
        assert path.read_bytes() == files[f"/val2017/{path.name}"]
