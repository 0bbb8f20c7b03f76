"""Images and machine figures of earlier runs, from DVC's cache.

DVC's run cache ignores the stage `images`, because of `persist: true`. But the `dvc.lock` of each
commit and each experiment has the source of the images of a run, and their hashes. DVC documents
the formats of `dvc.lock` and of its cache.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cocoseg.coco.instances import ImageRecord
from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file
from cocoseg.core.images import is_whole
from cocoseg.core.values import parse_yaml
from cocoseg.params.download import DownloadParams
from cocoseg.sources.transfer import md5_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _EarlierRun:
    """The stage `images` of an earlier run.

    Attributes:
        cache: the directory of DVC's cache.
        url: the URL of its COCO images; empty for other sources.
        images: the MD5 of each image by its file name.
        figures: the MD5 of `metrics/machine/images.json`.
    """

    cache: Path
    url: str
    images: Mapping[str, str]
    figures: str

    def restore(self, image: ImageRecord, path: Path) -> bool:
        """Copy an image from the cache; false if it is missing, unreadable or damaged."""
        md5 = self.images[image.file_name]
        cached = _cached(self.cache, md5)
        try:
            if md5_of(cached) != md5:
                return False
        except OSError:
            return False
        with atomic_file(path) as temporary:
            shutil.copyfile(cached, temporary)
        return is_whole(path, image.width, image.height)


def restore_images(images: Sequence[ImageRecord], directory: Path, params: DownloadParams) -> None:
    """Copy missing images of a COCO server from DVC's cache, so that they are not fetched again.

    Only images that an earlier run fetched from the same URL count. Without Git or DVC there are
    none.

    Args:
        images: the selected images.
        directory: the directory of the images.
        params: section `download` of the parameters.
    """
    missing = {
        image.file_name: image
        for image in images
        if not is_whole(directory / image.file_name, image.width, image.height)
    }
    url, count = _url(params.model_dump()), len(missing)
    if not url or not missing:
        return
    for run in _earlier_runs():
        if run.url == url:
            for name in missing.keys() & run.images.keys():
                if run.restore(missing[name], directory / name):
                    del missing[name]
        if not missing:
            break
    if restored := count - len(missing):
        logger.info("%s: restored %d images from DVC's cache", directory, restored)


def earlier_figures(directory: Path) -> dict[str, Any] | None:
    """The machine figures of an earlier run with exactly the images of `directory`, if any."""
    names = {path.name for path in directory.iterdir()}
    for run in _earlier_runs():
        if run.images.keys() == names and all(
            md5_of(directory / name) == md5 for name, md5 in run.images.items()
        ):
            try:
                figures: dict[str, Any] = json.loads(_cached(run.cache, run.figures).read_bytes())
            except (OSError, ValueError):
                continue
            return figures
    return None


def _url(download: Mapping[str, Any]) -> str:
    """The URL of COCO images by the section `download`; empty for other sources."""
    coco = download["coco"]
    return f"{coco['base_url'].rstrip('/')}/{coco['split']}" if download["source"] == "coco" else ""


def _earlier_runs() -> Iterator[_EarlierRun]:
    """The runs whose list of images is in DVC's cache: of HEAD, of the workspace, of the others."""
    cache = Path(_output(sys.executable, "-m", "dvc", "cache", "dir").strip())
    seen = set()
    for lock in _locks():
        # Parsing the whole file takes many times as long.
        found = re.search(r"^  images:\n(?: {4}.*\n)+", lock, re.MULTILINE)
        try:
            stage = parse_yaml(found.group() if found else "", "dvc.lock")["images"]
            md5s = {out["path"]: out["md5"] for out in stage["outs"]}
            listing, figures = md5s["data/images"], md5s["metrics/machine/images.json"]
            if (listing, figures) not in seen:
                seen.add((listing, figures))
                entries = json.loads(_cached(cache, listing).read_bytes())
                images = {entry["relpath"]: entry["md5"] for entry in entries}
                url = _url(stage["params"]["params.yaml"]["download"])
                yield _EarlierRun(cache, url, images, figures)
        except (UserError, OSError, KeyError, TypeError, ValueError):
            continue  # a file with conflicts, of an early version, or removed from the cache


def _locks() -> Iterator[str]:
    """The content of `dvc.lock` in each commit and experiment."""
    show = ("git", "show")
    yield _output(*show, "HEAD:./dvc.lock")
    with suppress(FileNotFoundError):
        yield Path("dvc.lock").read_text(encoding="utf-8")
    for commit in _output("git", "rev-list", "--all", "--", "dvc.lock").split():
        yield _output(*show, f"{commit}:./dvc.lock")


def _cached(cache: Path, md5: str) -> Path:
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def _output(*command: str) -> str:
    """The output of a command, empty if it fails."""
    # In a partial clone, Git would fetch files that are missing.
    environment = {**os.environ, "GIT_NO_LAZY_FETCH": "1"}
    try:
        result = subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
    return result.stdout
