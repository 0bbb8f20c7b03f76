"""COCO's server, or a mirror with the same layout.

BASE_URL/annotations/annotations_trainval2014.zip   contains annotations/instances_val2014.json
BASE_URL/val2014/COCO_val2014_000000000042.jpg      one file per image
"""

import errno
import hashlib
import logging
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from cocoseg.coco.instances import ImageRecord
from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file
from cocoseg.core.images import check_image, is_whole
from cocoseg.core.progress import show_progress
from cocoseg.params.download import CocoParams
from cocoseg.sources.retry import DEFAULT_POLICY, RetryPolicy
from cocoseg.sources.transfer import Download, fetch_file, fetch_many, md5_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoSource:
    """COCO's server or a mirror.

    Attributes:
        params: section `download.coco` of params.yaml.
        connections: the number of parallel connections for images.
        downloads: the directory for archives and discarded images, so that returning to an earlier
            selection makes no request. `dvc_cache` knows only the images of committed runs.
        policy: when to retry, and when to give up.
    """

    params: CocoParams
    connections: int
    downloads: Path
    policy: RetryPolicy = DEFAULT_POLICY

    def write_annotations(self, path: Path) -> None:
        download_annotations(
            self.params.base_url,
            self.params.split,
            self.params.md5,
            self.downloads,
            path,
            policy=self.policy,
        )

    def fetch_images(self, images: Sequence[ImageRecord], directory: Path) -> int:
        missing = [
            image
            for image in show_progress(images, "checking images")
            if not _is_complete(image, directory)
        ]
        for image in missing:
            if _is_complete(image, self._discarded):
                _move(self._discarded / image.file_name, directory / image.file_name)
        unfetched = [image for image in missing if not _is_complete(image, directory)]
        if unfetched:
            download_images(
                self.params.base_url,
                self.params.split,
                unfetched,
                directory,
                connections=self.connections,
                policy=self.policy,
            )
        return len(missing)

    def discard_image(self, path: Path) -> None:
        _move(path, self._discarded / path.name)

    @property
    def _discarded(self) -> Path:
        return self.downloads / "images"


def _is_complete(image: ImageRecord, directory: Path) -> bool:
    return is_whole(directory / image.file_name, image.width, image.height)


def _move(source: Path, target: Path) -> None:
    """Move a file, if necessary to another file system; `target` appears only when complete."""
    with atomic_file(target) as temporary:
        shutil.move(source, temporary)


def download_annotations(
    base_url: str,
    split: str,
    md5: str | None,
    downloads: Path,
    path: Path,
    *,
    policy: RetryPolicy = DEFAULT_POLICY,
) -> None:
    """Fetch the annotations of one split.

    The archive is kept, because it also contains the other split of the year. It is fetched again
    if it is damaged or has another MD5 than `md5`.

    Args:
        base_url: the URL of the server or mirror; http(s):// or file://.
        split: such as "val2014".
        md5: the expected MD5 of the archive in hexadecimal digits, or None to skip the check.
        downloads: the directory for archives.
        path: the JSON file to write.
        policy: when to retry, and when to give up.

    Raises:
        UserError: the archive cannot be fetched, is damaged or does not contain the split.
    """
    url = f"{base_url.rstrip('/')}/annotations/annotations_trainval{split[-4:]}.zip"
    # Archives of different servers may have the same name but different content.
    server = hashlib.sha256(base_url.rstrip("/").encode()).hexdigest()[:8]
    archive = downloads / server / url.rpartition("/")[2]
    member = f"annotations/instances_{split}.json"
    if archive.exists() and (md5_of(archive) == md5 if md5 else not url.startswith("file:")):
        try:
            logger.info("extracting %s from %s", member, archive)
            return _extract(archive, member, path)
        except _BadArchive as error:
            logger.warning("%s %s; fetching it again", archive, error)
    fetch_file(url, archive, md5=md5, policy=policy)
    try:
        return _extract(archive, member, path)
    except _BadArchive as error:
        archive.unlink()
        raise UserError(
            f"{url} {error}; check download.coco.base_url and download.coco.split, then rerun"
        ) from None


def download_images(
    base_url: str,
    split: str,
    images: Sequence[ImageRecord],
    directory: Path,
    *,
    connections: int,
    policy: RetryPolicy = DEFAULT_POLICY,
) -> None:
    """Fetch images of one split. Each is decoded to check it and its size.

    Args:
        base_url: the URL of the server or mirror; http(s):// or file://.
        split: such as "val2014".
        images: the images to fetch; existing files are replaced.
        directory: the directory to write to.
        connections: the number of parallel connections.
        policy: when to retry, and when to give up.

    Raises:
        UserError: a file name contains a directory, or some images could not be fetched; the others
            were (see `fetch_many`).
        OSError: a file cannot be written.
    """
    downloads = [
        Download(
            f"{base_url.rstrip('/')}/{split}/{quote(image.file_name)}",
            directory / _plain_name(image.file_name),
            partial(check_image, width=image.width, height=image.height),
        )
        for image in images
    ]
    fetch_many(downloads, connections=connections, label="images", policy=policy)


class _BadArchive(Exception):
    """The message completes a sentence that begins with the name of the archive."""


def _extract(archive: Path, member: str, path: Path) -> None:
    """Write one member to `path`. Other names in the archive are ignored, even unsafe ones."""
    try:
        with (
            zipfile.ZipFile(archive) as opened,
            opened.open(member) as source,
            atomic_file(path) as temporary,
            temporary.open("wb") as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)
    except KeyError:
        raise _BadArchive(f"does not contain {member}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        # RuntimeError: encrypted, or compressed by a method that Python does not support.
        raise _BadArchive(
            f"is not a valid zip archive: {str(error) or type(error).__name__}"
        ) from None
    except OSError as error:
        # EINVAL: an offset before the start of the file. Others come from the disk.
        if error.errno != errno.EINVAL:
            raise
        raise _BadArchive("is not a valid zip archive: an offset in it is negative") from None


def _plain_name(file_name: str) -> str:
    if file_name in ("", "..") or Path(file_name).name != file_name or set("\\\0") & set(file_name):
        raise UserError(
            f"the annotations contain the file name {file_name!r}; expected a name without a "
            "directory: correct it and rerun"
        )
    return file_name
