"""People's own data: COCO files of labelling tools, and photos in folders or at addresses.

Locations are addresses (http, https, file), absolute paths (also from ~), or paths below
`download.files.folder`, on which DVC makes the stages depend.
"""

import filecmp
import hashlib
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

import msgspec

from cocoseg.coco.instances import ImageRecord
from cocoseg.coco.rejections import Defect, Reason
from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file, flat_name
from cocoseg.core.images import (
    DamagedImage,
    UnknownOrientation,
    WrongSize,
    agreed_size,
    check_image,
    is_whole,
)
from cocoseg.core.parallel import in_processes
from cocoseg.params.download import FilesParams
from cocoseg.sources.exports import Export, Found, Wanted, merge, read_export
from cocoseg.sources.matching import ImageDirectory, NoMatch, plain_path
from cocoseg.sources.retry import DEFAULT_POLICY, RetryPolicy
from cocoseg.sources.transfer import Download, fetch_file, fetch_many

_REASONS = {
    DamagedImage: Reason.IMAGE_DAMAGED,
    WrongSize: Reason.IMAGE_SIZE,
    UnknownOrientation: Reason.ORIENTATION_UNKNOWN,
}


@dataclass(frozen=True)
class FilesSource:
    """Exports as `params` names them; `workers` processes look at photos, `connections` are fetched
    at once. What comes from addresses is kept in `downloads`."""

    params: FilesParams
    connections: int
    workers: int
    downloads: Path
    policy: RetryPolicy = DEFAULT_POLICY

    def write_annotations(self, path: Path) -> None:
        exports = [
            self._read(self._location(pair.annotations), pair.split) for pair in self.params.pairs
        ]
        document = merge(exports, self._locate)
        with atomic_file(path) as temporary:
            temporary.write_bytes(msgspec.json.encode(document) + b"\n")

    def fetch_images(self, images: Sequence[ImageRecord], directory: Path) -> int:
        self._fetch(
            (image, image.source, self._here(image))
            for image in images
            if _is_remote(image.source)
            and not is_whole(self._here(image), image.width, image.height)
        )
        missing = [
            image
            for image in images
            if not _are_equal(self._here(image), directory / image.file_name)
        ]
        self._fetch(
            (image, self._here(image).absolute().as_uri(), directory / image.file_name)
            for image in missing
        )
        return len(missing)

    def discard_image(self, path: Path) -> None:
        """Nothing: it is still where it was copied from."""

    def _location(self, location: str) -> str:
        """The address or path that a location stands for, as it is written in params.yaml."""
        if "://" in location or location.startswith(("/", "~")):
            return location
        return posixpath.normpath(f"{self.params.directory}/{location}")

    def _read(self, location: str, split: str | None) -> Export:
        if not _is_remote(location):
            return read_export(_local_path(location), split)
        path = self._kept(location, "annotations")
        fetch_file(location, path, policy=self.policy)
        return read_export(path, split)

    def _locate(self, wanted: Sequence[Wanted]) -> Iterator[Found]:
        bases = [self._location(pair.images).rstrip("/") for pair in self.params.pairs]
        directories = {
            base: None if _is_remote(base) else ImageDirectory(_local_path(base))
            for base in set(bases)
        }
        jobs = (_find(want, bases[want.export], directories[bases[want.export]]) for want in wanted)
        return in_processes(_look_at, jobs, self.workers)

    def _fetch(self, wanted: Iterator[tuple[ImageRecord, str, Path]]) -> None:
        downloads = [
            Download(url, path, partial(check_image, width=image.width, height=image.height))
            for image, url, path in wanted
        ]
        if downloads:
            fetch_many(downloads, connections=self.connections, label="images", policy=self.policy)

    def _here(self, image: ImageRecord) -> Path:
        """Where on this machine a photo lies, or is to lie."""
        if not image.source:
            raise UserError(f"{image.file_name} is of another source: run `dvc repro`")
        if _is_remote(image.source):
            return self._kept(image.source, "images")
        return _local_path(image.source)

    def _kept(self, url: str, kind: str) -> Path:
        # Different addresses may end in the same name, which is for people: its first letters do.
        address = hashlib.sha256(url.encode()).hexdigest()[:24]
        return self.downloads / kind / f"{address} {flat_name(url.rpartition('/')[2])[:40]}"


@dataclass(frozen=True)
class _Job:
    """A photo to look at: its path below `base`, and its file here; or why there is none."""

    wanted: Wanted
    base: str
    path: str
    file: Path | None = None
    defect: Defect | None = None


def _find(wanted: Wanted, base: str, directory: ImageDirectory | None) -> _Job:
    try:
        if directory is None:
            return _Job(wanted, base, plain_path(wanted.file_name))
        path = directory.find(wanted.file_name)
        return _Job(wanted, base, path, directory.directory / path)
    except NoMatch as error:
        return _Job(wanted, base, "", defect=Defect(error.reason, error.detail))


def _look_at(job: _Job) -> Found:
    """Decode a photo; one at an address is looked at when it is fetched."""
    width, height = job.wanted.width or 0, job.wanted.height or 0
    source = f"{job.base}/{quote(job.path) if '://' in job.base else job.path}"
    defect = job.defect
    if job.file:
        try:
            width, height = agreed_size(job.file, job.wanted.width, job.wanted.height)
        except DamagedImage as error:
            defect = Defect(_REASONS[type(error)], f"{job.path} {error}")
        except OSError as error:
            defect = Defect(Reason.IMAGE_DAMAGED, f"{job.path}: {error.strerror}")
    elif not defect and not width:
        defect = Defect(Reason.SIZE_MISSING, "only images in a directory tell their size")
    return Found(job.path, source, width, height, defect)


def _is_remote(location: str) -> bool:
    return location.startswith(("http://", "https://"))


def _local_path(location: str) -> Path:
    """The path that a location which is not remote stands for."""
    if location.startswith("file://"):
        return Path(url2pathname(urlsplit(location).path))
    return Path(location).expanduser()


def _are_equal(original: Path, copy: Path) -> bool:
    try:
        return filecmp.cmp(original, copy, shallow=False)
    except FileNotFoundError:
        return False
