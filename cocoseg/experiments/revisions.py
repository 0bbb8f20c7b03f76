"""What other revisions hold, read through DVC: nothing is checked out or changed.

    for revision in find_revisions("seed-*"):
        revision.scored_run()

The only module of the library that knows this project's files and DVC.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import msgspec
import numpy as np
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs
from dvc.scm import resolve_rev
from PIL import Image
from scmrepo.exceptions import SCMError

from cocoseg.core.errors import UserError
from cocoseg.core.labels import Labels
from cocoseg.core.values import flatten
from cocoseg.core.yaml12 import parse_yaml
from cocoseg.evaluation.label_errors import LabelError, read_label_errors
from cocoseg.evaluation.statistics import ImageCounts, ScoredRun

WORKSPACE = "workspace"
TEST_IMAGES = "metrics/test_images.json"
LABEL_ERRORS = "metrics/label_errors.csv"


@dataclass(frozen=True)
class Revision:
    """A commit or an experiment by the name it was asked for, or the workspace, without `sha`."""

    name: str
    sha: str | None

    @cached_property
    def _files(self) -> DVCFileSystem:
        # The remotes of today: a revision may be older than they are.
        with _open_repo() as repo:
            remotes = {section: dict(repo.config[section]) for section in ("core", "remote")}
        return DVCFileSystem(".", rev=self.sha, config=remotes)

    def read(self, path: str) -> bytes:
        """The content of a file of this revision, from Git, DVC's cache or its remote.

        Raises UserError when the revision has no such file, or the file cannot be had.
        """
        try:
            content: bytes = self._files.read_bytes(path)
        except (OSError, DvcException) as error:
            if not self._was_made(path):
                raise UserError(f"{self.name} has no {path}: {self._remedy()}") from None
            where = "neither in DVC's cache nor in a remote here"
            raise UserError(f"{self.name}: {path} is {where}; {self._fetch()}") from error
        return content

    def _was_made(self, path: str) -> bool:
        """Whether DVC knows the content of a file, be it here or not."""
        try:
            return "md5" in self._files.info(path)
        except FileNotFoundError:
            return False

    def _remedy(self) -> str:
        if self.sha is None:
            return "run `dvc repro evaluate`, which makes it"
        return (
            "it is of a run before that was written, or of an unfinished one; "
            f"`git checkout {self.sha[:7]}`, then `dvc repro evaluate` and commit"
        )

    def _fetch(self) -> str:
        if self.sha is None:
            return "`dvc checkout` or `dvc pull` brings it"
        return (
            "`dvc push` (or `dvc exp push origin NAME`) where it was run, then here "
            "`dvc fetch --all-commits` (or `dvc exp pull origin NAME`); of experiments older than "
            "the remote see docs/remotes.md"
        )

    def params(self) -> dict[str, Any]:
        """Its params.yaml."""
        text = self.read("params.yaml").decode(errors="replace")
        content = parse_yaml(text, f"{self.name}: params.yaml")
        return content if isinstance(content, dict) else {}

    def scored_with(self) -> list[str]:
        """The parameters, as `a.b=1`, that its scores were made with and that its params.yaml has
        changed since: `dvc repro` is due."""
        now = flatten(self.params())
        lock = parse_yaml(self.read("dvc.lock").decode(), f"{self.name}: dvc.lock")
        before: dict[str, Any] = {}
        for name, stage in lock["stages"].items():
            if name not in ("export", "report"):  # after the scores
                before |= flatten(stage.get("params", {}).get("params.yaml", {}))
        return [f"{key}={value}" for key, value in before.items() if now.get(key) != value]

    def scores(self) -> dict[str, Any]:
        """Its metrics/test.json. Raises UserError when that is missing or damaged."""
        scores: dict[str, Any] = self._decode("metrics/test.json", dict[str, Any])
        return scores

    def scored_run(self) -> ScoredRun:
        """Its counts on each test image. Raises UserError when they are missing or damaged."""
        counts: ImageCounts = self._decode(TEST_IMAGES, ImageCounts)
        shape = (len(counts.classes),) * 2
        try:
            whole = all(np.shape(matrix) == shape for matrix in counts.confusions.values())
        except ValueError:  # rows of different lengths
            whole = False
        if (
            not whole
            or not counts.confusions
            or counts.ground_truths.keys() != counts.confusions.keys()
        ):
            raise self._damaged(TEST_IMAGES)
        trained_on = self.read("data/splits/train.txt").decode(errors="replace").split("\n")
        return ScoredRun(self.name, counts, frozenset(trained_on) - {""})

    def label_errors(self) -> list[LabelError]:
        """Its metrics/label_errors.csv. Raises UserError when that is missing or damaged."""
        try:
            return read_label_errors(self.read(LABEL_ERRORS).decode())
        except ValueError:
            raise self._damaged(LABEL_ERRORS) from None

    def _decode(self, path: str, kind: Any) -> Any:
        try:
            return msgspec.json.decode(self.read(path), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._damaged(path) from None

    def _damaged(self, path: str) -> UserError:
        return UserError(
            f"{self.name}: {path} is damaged; `dvc repro --force --single-item evaluate` mends it"
        )

    def true_labels(self, stem: str) -> Labels:
        return self._labels(f"data/masks/{stem}.png")

    def predicted_labels(self, stem: str) -> Labels:
        return self._labels(f"data/predictions/{stem}.png")

    def _labels(self, path: str) -> Labels:
        """The labels (H, W) of a label map."""
        return np.array(self._image(path))

    def _image(self, path: str) -> Image.Image:
        """An image file, decoded. Raises UserError when it is missing or damaged."""
        content = self.read(path)
        try:
            image = Image.open(io.BytesIO(content))
            image.load()
        except (OSError, SyntaxError, ValueError):  # what Pillow raises, by format
            raise UserError(
                f"{self.name}: {path} is damaged; delete it, then `dvc checkout` or `dvc repro` "
                "brings it back"
            ) from None
        return image

    def photo(self, stem: str) -> Image.Image:
        """The photo of that stem, as the file has it: not turned as its EXIF says."""
        files = map(PurePosixPath, self._files.ls("data/images", detail=False))
        name = next((file.name for file in files if file.stem == stem), f"{stem}.jpg")
        return self._image(f"data/images/{name}")


def find_revisions(name: str) -> list[Revision]:
    """What `name` stands for: `workspace`, a commit, branch, tag or experiment, or, with `*`, `?`
    or `[`, all experiments, branches and tags of such a name.

    Raises UserError where there is none, and outside of a repository with Git and DVC.
    """
    if name == WORKSPACE:
        _open_repo().close()
        return [Revision(WORKSPACE, None)]
    with _open_repo() as repo:
        try:
            return [Revision(found, resolve_rev(repo.scm, found)) for found in _names(repo, name)]
        except (SCMError, DvcException):
            raise UserError(
                f"{name} is no commit, branch, tag or experiment here: `git log --oneline` and "
                "`dvc exp list -A` name them, `git fetch` and `dvc exp pull` bring those of others"
            ) from None


def _names(repo: Repo, name: str) -> Sequence[str]:
    if not set("*?[") & set(name):
        return [name]
    known = {ref.name for ref in exp_refs(repo.scm)} | {*repo.scm.list_branches()}
    found = sorted(n for n in known | {*repo.scm.list_tags()} if n and fnmatch(n, name))
    if not found:
        raise UserError(f"no experiment, branch or tag is called {name}: see `dvc exp list -A`")
    return found


def experiments() -> list[Revision]:
    """The experiments that started from the present commit, by name."""
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
        raise UserError("no DVC project here: run from the folder of a Git clone of it") from None
