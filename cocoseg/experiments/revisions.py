"""Files of other revisions, read through DVC without a checkout.

for revision in find_revisions("seed-*"):
    revision.scored_run()
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, TypeVar

import msgspec
import numpy as np
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs
from dvc.scm import resolve_rev
from PIL import Image, ImageOps
from scmrepo.exceptions import SCMError

from cocoseg.core.drawing import RGBImage
from cocoseg.core.errors import UserError
from cocoseg.core.images import to_rgb
from cocoseg.core.labels import Labels
from cocoseg.core.values import flatten
from cocoseg.core.yaml12 import parse_yaml
from cocoseg.evaluation.label_errors import LabelError, read_label_errors
from cocoseg.evaluation.statistics import ImageCounts, ScoredRun

WORKSPACE = "workspace"
"""The name of the revision that reads the working tree."""

_TEST_IMAGES = "metrics/test_images.json"
_LABEL_ERRORS = "metrics/label_errors.csv"
_SCORES = "metrics/test.json"

ContentT = TypeVar("ContentT")


@dataclass(frozen=True)
class Revision:
    """The files of a commit, of an experiment, or of the workspace.

    Files are read from Git, DVC's cache or its remote. All methods raise a UserError if a file is
    missing, not available or damaged.

    Attributes:
        name: the name that the user gave, such as a branch.
        sha: the commit; None for the workspace.
    """

    name: str
    sha: str | None

    @cached_property
    def _files(self) -> DVCFileSystem:
        # The current remotes: an old revision may not have them.
        with _open_repo() as repo:
            remotes = {section: dict(repo.config[section]) for section in ("core", "remote")}
        return DVCFileSystem(".", rev=self.sha, config=remotes)

    def read(self, path: str) -> bytes:
        """Read a file."""
        try:
            content: bytes = self._files.read_bytes(path)
        except (OSError, DvcException) as error:
            if not self._is_tracked(path):
                raise UserError(f"{self.name} has no {path}: {self._rerun()}") from None
            where = "neither in DVC's cache nor in a remote"
            raise UserError(f"{self.name}: {path} is {where}; {self._fetch()}") from error
        return content

    def file_names(self, directory: str) -> list[str]:
        """List the names of the files in a directory."""
        return [PurePosixPath(path).name for path in self._files.ls(directory, detail=False)]

    def _is_tracked(self, path: str) -> bool:
        """Whether DVC knows the hash of a file, even if its content is not available."""
        try:
            return "md5" in self._files.info(path)
        except FileNotFoundError:
            return False

    def _rerun(self, options: str = "") -> str:
        command = f"run `dvc repro{options} evaluate`"
        if self.sha is None:
            return command
        return (
            "its run is unfinished or from an earlier version of this project; "
            f"check it out (`git checkout {self.sha[:7]}`), {command}, and commit"
        )

    def _fetch(self) -> str:
        if self.sha is None:
            return "run `dvc checkout` or `dvc pull`"
        return (
            "run `dvc push` (or `dvc exp push origin NAME`) in the clone where it was run, then "
            "`dvc fetch --all-commits` (or `dvc exp pull origin NAME`) here; for experiments older "
            "than the remote, see docs/experiments.md"
        )

    def params(self) -> dict[str, Any]:
        """Read params.yaml."""
        text = self.read("params.yaml").decode(errors="replace")
        content = parse_yaml(text, f"{self.name}: params.yaml")
        return content if isinstance(content, dict) else {}

    def outdated_params(self) -> list[str]:
        """List the parameters of the scores that params.yaml has changed since, as `a.b=1`."""
        current = flatten(self.params())
        lock = parse_yaml(self.read("dvc.lock").decode(), f"{self.name}: dvc.lock")
        used: dict[str, Any] = {}
        for name, stage in lock["stages"].items():
            if name not in ("export", "report"):  # these stages do not change the scores
                used |= flatten(stage.get("params", {}).get("params.yaml", {}))
        return [f"{key}={value}" for key, value in used.items() if current.get(key) != value]

    def scores(self) -> dict[str, Any]:
        """Read the test scores, `metrics/test.json`."""
        return self._decode(_SCORES, dict[str, Any])

    def scored_run(self) -> ScoredRun:
        """Read the counts on each test image, and the stems of the training images."""
        counts = self._decode(_TEST_IMAGES, ImageCounts)
        shape = (len(counts.classes),) * 2
        try:
            valid = all(np.shape(matrix) == shape for matrix in counts.confusions.values())
        except ValueError:  # rows of different lengths
            valid = False
        if (
            not valid
            or not counts.confusions
            or counts.ground_truths.keys() != counts.confusions.keys()
        ):
            raise self._damaged(_TEST_IMAGES)
        trained_on = self.read("data/splits/train.txt").decode(errors="replace").split("\n")
        return ScoredRun(self.name, counts, frozenset(trained_on) - {""})

    def label_errors(self) -> list[LabelError]:
        """Read the potential label errors, `metrics/label_errors.csv`."""
        try:
            return read_label_errors(self.read(_LABEL_ERRORS).decode())
        except ValueError:
            raise self._damaged(_LABEL_ERRORS) from None

    def _decode(self, path: str, kind: type[ContentT]) -> ContentT:
        try:
            return msgspec.json.decode(self.read(path), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._damaged(path) from None

    def _damaged(self, path: str) -> UserError:
        problem = f"{path} is damaged, or from an earlier version of this project"
        return UserError(f"{self.name}: {problem}: {self._rerun(' --force --single-item')}")

    def ground_truth(self, stem: str) -> Labels:
        """Read the mask of an image, uint8 (H, W)."""
        return np.array(self._read_image(f"data/masks/{stem}.png"))

    def prediction(self, stem: str) -> Labels:
        """Read the predicted mask of a test image, uint8 (H, W)."""
        return np.array(self._read_image(f"data/predictions/{stem}.png"))

    def image(self, stem: str, labels: Labels) -> RGBImage:
        """Read an image, uint8 (H, W, 3), in the orientation of its labels (H, W)."""
        names = self.file_names("data/images")
        name = next((name for name in names if PurePosixPath(name).stem == stem), f"{stem}.jpg")
        return oriented_rgb(self._read_image(f"data/images/{name}"), labels)

    def _read_image(self, path: str) -> Image.Image:
        content = self.read(path)
        try:
            image = Image.open(io.BytesIO(content))
            image.load()
        except (OSError, SyntaxError, ValueError):  # raised by Pillow, depending on the format
            raise UserError(
                f"{self.name}: {path} is damaged; remove it, then run `dvc checkout` or `dvc repro`"
            ) from None
        return image


def oriented_rgb(image: Image.Image, labels: Labels) -> RGBImage:
    """Convert an image to RGB; apply its EXIF orientation if only then it has the labels' shape."""
    if image.size != labels.shape[::-1]:
        image = ImageOps.exif_transpose(image)
    return to_rgb(image)


def find_revisions(name: str) -> list[Revision]:
    """Find the revisions of a name or a pattern.

    Args:
        name: `workspace`, a commit, branch, tag or experiment; or, with `*`, `?` or `[`, a pattern
            for the names of experiments, branches and tags.

    Returns:
        The revision, or all revisions that match the pattern, sorted by name.

    Raises:
        UserError: there are none, or the current directory is not in a repository of Git and DVC.
    """
    if name == WORKSPACE:
        _open_repo().close()
        return [Revision(WORKSPACE, None)]
    with _open_repo() as repo:
        try:
            return [Revision(found, resolve_rev(repo.scm, found)) for found in _names(repo, name)]
        except (SCMError, DvcException):
            raise UserError(
                f"{name}: no such commit, branch, tag or experiment; list them with "
                "`git log --oneline` and `dvc exp list -A`, and fetch missing ones with "
                "`git fetch` or `dvc exp pull`"
            ) from None


def _names(repo: Repo, name: str) -> Sequence[str]:
    if not set("*?[") & set(name):
        return [name]
    known = {ref.name for ref in exp_refs(repo.scm)} | {*repo.scm.list_branches()}
    found = sorted(n for n in known | {*repo.scm.list_tags()} if n and fnmatch(n, name))
    if not found:
        raise UserError(f"no experiment, branch or tag matches {name}: see `dvc exp list -A`")
    return found


def experiments() -> list[Revision]:
    """List the experiments that started from the current commit, by name."""
    with _open_repo() as repo:
        head = repo.scm.get_rev()
        refs = [ref for ref in exp_refs(repo.scm) if ref.baseline_sha == head and ref.name]
        return [
            Revision(str(ref.name), repo.scm.get_ref(str(ref)))
            for ref in sorted(refs, key=lambda ref: str(ref.name))
        ]


def _open_repo() -> Repo:
    try:
        return Repo()
    except (NotDvcRepoError, SCMError):
        raise UserError(
            "no DVC project here: run the command in a Git clone of the project"
        ) from None
