"""Your own data: COCO files of labeling tools, and images in directories or at URLs.

Locations are URLs (http, https, file), absolute paths, paths that start with `~`, or paths relative
to `download.files.directory`, a DVC dependency of the stages.
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
    TooLarge,
    UnknownOrientation,
    WrongSize,
    agreed_size,
    check_image,
    is_whole,
)
from cocoseg.core.parallel import in_processes
from cocoseg.core.progress import show_progress
from cocoseg.params.download import FilesParams
from cocoseg.sources.exports import Export, ImageMatch, ImageQuery, merge, read_export
from cocoseg.sources.matching import ImageDirectory, NoMatch, plain_path
from cocoseg.sources.retry import DEFAULT_POLICY, RetryPolicy
from cocoseg.sources.transfer import Download, fetch_file, fetch_many

_REASONS = {
    DamagedImage: Reason.IMAGE_DAMAGED,
    WrongSize: Reason.IMAGE_SIZE,
    TooLarge: Reason.IMAGE_TOO_LARGE,
    UnknownOrientation: Reason.ORIENTATION_UNKNOWN,
}


@dataclass(frozen=True)
class FilesSource:
    """Exports of labeling tools.

    Attributes:
        params: section `download.files` of params.yaml.
        connections: the number of parallel connections for images.
        workers: the number of processes that decode images.
        downloads: the directory for files from http(s):// URLs.
        policy: when to retry, and when to give up.
    """

    params: FilesParams
    connections: int
    workers: int
    downloads: Path
    policy: RetryPolicy = DEFAULT_POLICY

    def write_annotations(self, path: Path) -> None:
        exports = [self._read(pair.annotations, pair.split) for pair in self.params.pairs]
        document = merge(exports, self._locate)
        with atomic_file(path) as temporary:
            temporary.write_bytes(msgspec.json.encode(document) + b"\n")

    def fetch_images(self, images: Sequence[ImageRecord], directory: Path) -> int:
        self._fetch(
            (image, image.source, self._original(image))
            for image in show_progress(images, "checking images")
            if _is_remote(image.source)
            and not is_whole(self._original(image), image.width, image.height)
        )
        missing = [
            image
            for image in show_progress(images, "comparing images")
            if not _are_equal(self._original(image), directory / image.file_name)
        ]
        self._fetch(
            (image, self._original(image).absolute().as_uri(), directory / image.file_name)
            for image in missing
        )
        return len(missing)

    def discard_image(self, path: Path) -> None:
        """Do nothing: the file is a copy."""

    def _location(self, location: str) -> str:
        """The URL or path of a location in params.yaml."""
        if "://" in location or location.startswith(("/", "~")):
            return location
        return posixpath.normpath(f"{self.params.directory}/{location}")

    def _read(self, name: str, split: str | None) -> Export:
        location = self._location(name)
        if not _is_remote(location):
            return read_export(_local_path(location), split, name)
        path = self._download_path(location, "annotations")
        fetch_file(location, path, policy=self.policy)
        return read_export(path, split, name)

    def _locate(self, queries: Sequence[ImageQuery]) -> Iterator[ImageMatch]:
        bases = [self._location(pair.images).rstrip("/") for pair in self.params.pairs]
        directories = {
            base: None if _is_remote(base) else ImageDirectory(_local_path(base))
            for base in set(bases)
        }
        candidates = (
            _find(query, bases[query.export], directories[bases[query.export]]) for query in queries
        )
        inspected = in_processes(_inspect, candidates, self.workers)
        return show_progress(inspected, "checking images", len(queries))

    def _fetch(self, files: Iterator[tuple[ImageRecord, str, Path]]) -> None:
        downloads = [
            Download(url, path, partial(check_image, width=image.width, height=image.height))
            for image, url, path in files
        ]
        if downloads:
            fetch_many(downloads, connections=self.connections, label="images", policy=self.policy)

    def _original(self, image: ImageRecord) -> Path:
        """The local file of an image, or the path to which its URL is downloaded."""
        if not image.source:
            raise UserError(
                f"{image.file_name} was selected from another source; run `dvc repro` to select "
                "images again"
            )
        if _is_remote(image.source):
            return self._download_path(image.source, "images")
        return _local_path(image.source)

    def _download_path(self, url: str, kind: str) -> Path:
        # The digest makes the name unique; the end of the URL is for readers of the directory.
        digest = hashlib.sha256(url.encode()).hexdigest()[:24]
        return self.downloads / kind / f"{digest} {flat_name(url.rpartition('/')[2])[:40]}"


@dataclass(frozen=True)
class _Candidate:
    """An image file to inspect.

    Attributes:
        query: the entry of the annotation file.
        base: the directory or URL of the images.
        path: relative to `base`.
        file: the local file, or None for a URL or a defect.
        defect: why the file is unknown, if it is.
    """

    query: ImageQuery
    base: str
    path: str
    file: Path | None = None
    defect: Defect | None = None


def _find(query: ImageQuery, base: str, directory: ImageDirectory | None) -> _Candidate:
    try:
        if directory is None:
            return _Candidate(query, base, plain_path(query.file_name.removeprefix(f"{base}/")))
        path = directory.find(query.file_name)
        return _Candidate(query, base, path, directory.directory / path)
    except NoMatch as error:
        return _Candidate(query, base, "", defect=Defect(error.reason, error.detail))


def _inspect(candidate: _Candidate) -> ImageMatch:
    """Decode an image to find its size. An image at a URL is decoded when it is fetched."""
    query, base, path = candidate.query, candidate.base, candidate.path
    width, height = query.width or 0, query.height or 0
    source = f"{base}/{quote(path) if '://' in base else path}"
    defect = candidate.defect
    if candidate.file:
        try:
            width, height = agreed_size(candidate.file, query.width, query.height)
        except DamagedImage as error:
            defect = Defect(_REASONS[type(error)], f"{path} {error}")
        except OSError as error:
            defect = Defect(Reason.IMAGE_DAMAGED, f"{path}: {error.strerror}")
    elif not defect and not width:
        defect = Defect(Reason.SIZE_MISSING, "the image is at a URL, and its entry has no size")
    return ImageMatch(path, source, width, height, defect)


def _is_remote(location: str) -> bool:
    return location.startswith(("http://", "https://"))


def _local_path(location: str) -> Path:
    """The path of a location that is not an http(s):// URL."""
    if location.startswith("file://"):
        return Path(url2pathname(urlsplit(location).path))
    return Path(location).expanduser()


def _are_equal(original: Path, copy: Path) -> bool:
    try:
        return filecmp.cmp(original, copy, shallow=False)
    except FileNotFoundError:
        return False
