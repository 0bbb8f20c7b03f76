"""COCO's own server, or a mirror of its layout.

BASE_URL/annotations/annotations_trainval2014.zip   holds annotations/instances_val2014.json
BASE_URL/val2014/COCO_val2014_000000000042.jpg      one file an image
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
from cocoseg.params.download import CocoParams
from cocoseg.sources.retry import DEFAULT_POLICY, RetryPolicy
from cocoseg.sources.transfer import Download, fetch_file, fetch_many, md5_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoSource:
    """COCO's server or a mirror; `connections` images are fetched at once.

    Archives and dismissed images are kept in `downloads`, so that returning to an earlier selection
    asks for nothing. (DVC cannot restore them: its run cache ignores stages with `persist: true`.)
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
        missing = [image for image in images if not _is_there(image, directory)]
        for image in missing:
            if _is_there(image, self._discarded):
                _move(self._discarded / image.file_name, directory / image.file_name)
        unknown = [image for image in missing if not _is_there(image, directory)]
        if unknown:
            download_images(
                self.params.base_url,
                self.params.split,
                unknown,
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


def _is_there(image: ImageRecord, directory: Path) -> bool:
    return is_whole(directory / image.file_name, image.width, image.height)


def _move(source: Path, target: Path) -> None:
    """Move a file, also to another file system, so that `target` appears only when whole."""
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
    """Write the annotations of `split` (such as val2014) to `path`.

    The archive stays in the folder `downloads`: another split of the same year needs no second
    download. A kept one with another MD5 than `md5`, or a damaged one, is fetched anew. Raises
    UserError when the archive cannot be had, or does not hold the split.
    """
    url = f"{base_url.rstrip('/')}/annotations/annotations_trainval{split[-4:]}.zip"
    # Another server's archive may have the same name, and other content.
    server = hashlib.sha256(base_url.rstrip("/").encode()).hexdigest()[:8]
    archive = downloads / server / url.rpartition("/")[2]
    member = f"annotations/instances_{split}.json"
    if archive.exists() and (md5_of(archive) == md5 if md5 else not url.startswith("file:")):
        try:
            logger.info("taking %s from %s", member, archive)
            return _extract(archive, member, path)
        except _BadArchive as error:
            logger.warning("%s %s; fetching it anew", archive, error)
    fetch_file(url, archive, md5=md5, policy=policy)
    try:
        return _extract(archive, member, path)
    except _BadArchive as error:
        archive.unlink()
        raise UserError(
            f"{url} {error}; check download.coco.base_url and split, then run again"
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
    """Fetch these images to `folder`, `connections` at once; each is decoded and its size checked.

    Raises UserError as `fetch_many` does, and for a file name that would leave `folder`.
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
    """What is wrong with an archive, as the rest of a sentence that begins with its name."""


def _extract(archive: Path, member: str, path: Path) -> None:
    """Write the one member named `member` to `path`, where no other name in the archive matters."""
    try:
        with (
            zipfile.ZipFile(archive) as opened,
            opened.open(member) as source,
            atomic_file(path) as temporary,
            temporary.open("wb") as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)
    except KeyError:
        raise _BadArchive(f"does not hold {member}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        # RuntimeError: encrypted, or packed by a method that Python does not know.
        raise _BadArchive(
            f"is no sound zip archive: {str(error) or type(error).__name__}"
        ) from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # such as a full disk
            raise
        raise _BadArchive("is no sound zip archive: it points before its own start") from None


def _plain_name(file_name: str) -> str:
    if file_name in ("", "..") or Path(file_name).name != file_name or set("\\\0") & set(file_name):
        raise UserError(f"the file name {file_name!r} in the annotations is no plain name")
    return file_name
