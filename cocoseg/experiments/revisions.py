"""Files of other revisions, read through DVC without a checkout.

for revision in find_revisions("seed-*"):
    revision.scored_run()
"""

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo
from dvc.repo.experiments.utils import exp_refs
from dvc.scm import SCMError
from PIL import Image, ImageOps
from pygit2 import Commit, GitError, InvalidSpecError
from scmrepo.exceptions import SCMError as GitBackendError
from scmrepo.git import Git

from cocoseg.core.drawing import RGBImage
from cocoseg.core.errors import UserError
from cocoseg.core.images import to_rgb
from cocoseg.core.labels import Labels
from cocoseg.core.values import flatten, parse_yaml
from cocoseg.evaluation.label_errors import LabelError, read_label_errors
from cocoseg.evaluation.statistics import ImageCounts, ScoredRun
from cocoseg.sources.commits import ambiguous, resolve_commit, revision_files

logger = logging.getLogger(__name__)

WORKSPACE = "workspace"
"""The name of the revision that reads the working tree."""

Split = Literal["val", "test"]
"""The images whose scores are read: those that choose between runs, or those of the result."""

_LABEL_ERRORS = "metrics/label_errors.csv"

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
        with _open_repo() as repo:
            if self.sha is None:
                return DVCFileSystem(repo.root_dir)
            return revision_files(repo, self.name, self.sha)

    def read(self, path: str) -> bytes:
        """Read a file."""
        try:
            content: bytes = self._files.read_bytes(f"/{path}")
        except (OSError, DvcException) as error:
            if not self._is_tracked(path):
                raise UserError(f"{self.name} has no {path}: {self._rerun()}") from None
            where = "neither in DVC's cache nor in a remote"
            raise UserError(f"{self.name}: {path} is {where}; {self._fetch()}") from error
        return content

    def file_names(self, directory: str) -> list[str]:
        """List the names of the files in a directory."""
        return [PurePosixPath(path).name for path in self._files.ls(f"/{directory}", detail=False)]

    def _is_tracked(self, path: str) -> bool:
        """Whether DVC knows the hash of a file, even if its content is not available."""
        try:
            return "md5" in self._files.info(f"/{path}")
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

    def is_fold(self) -> bool:
        """Whether the run is a fold of a cross-validation (`split.fold`)."""
        split = self.params().get("split")
        return isinstance(split, dict) and split.get("fold") is not None

    def has_only_test_scores(self) -> bool:
        """Whether the run is from a version that did not score the validation images."""
        return self._is_tracked("metrics/test.json") and not self._is_tracked("metrics/val.json")

    def scores(self, split: Split) -> dict[str, Any]:
        """Read the scores, `metrics/val.json` or `metrics/test.json`."""
        return self._decode(f"metrics/{split}.json", dict[str, Any])

    def scored_run(self, split: Split) -> ScoredRun:
        """Read the counts on each image of a split, and the stems of the training images."""
        if split == "val" and self.has_only_test_scores():
            raise UserError(
                f"{self.name} has no metrics/val_images.json, only test scores: compare with "
                f"`--split test`, or {self._rerun()}"
            )
        path = f"metrics/{split}_images.json"
        counts = self._decode(path, ImageCounts)
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
            raise self._damaged(path)
        trained_on = self.read("data/splits/train.txt").decode(errors="replace").split("\n")
        return ScoredRun(self.name, counts, frozenset(trained_on) - {""})

    def models_tested(self) -> int:
        """Count the models that were scored on the same test images, with the model of this run.

        Looks at all commits and experiments of the clone. Two splits are the same if they list the
        same names. 0 if the run has no scores.
        """
        test, model = _tested(self.read("dvc.lock"))
        if not model:
            return 0
        with _open_repo() as repo:
            directory = Path(repo.root_dir).relative_to(repo.scm.root_dir)
            locks = _versions(repo.scm, (directory / "dvc.lock").as_posix())
        others = {found for own_test, found in map(_tested, locks) if own_test == test and found}
        return len(others | {model})

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
        """Read the predicted mask of a validation or test image, uint8 (H, W)."""
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
    with _open_repo() as repo:
        if name == WORKSPACE:
            return [Revision(WORKSPACE, None)]
        if not set("*?[") & set(name):
            return [Revision(name, resolve_commit(repo.scm, name))]
        refs = {ref: resolve_commit(repo.scm, ref) for ref in _branches_and_tags(repo.scm, name)}
        shas = {str(ref.name): repo.scm.get_ref(str(ref)) for ref in _experiments(repo.scm, name)}
    if not shas and not refs:
        raise UserError(f"no experiment, branch or tag matches {name}: see `dvc exp list -A`")
    return [Revision(found, sha) for found, sha in sorted((shas | refs).items())]


def _branches_and_tags(git: Git, pattern: str) -> list[str]:
    return [ref for ref in [*git.list_branches(), *git.list_tags()] if fnmatch(ref, pattern)]


def _experiments(git: Git, pattern: str) -> list[ExpRefInfo]:
    """The experiments of the current commit that match a pattern, or, if none does, of others."""
    matching = [ref for ref in exp_refs(git) if ref.name and fnmatch(ref.name, pattern)]
    head = git.get_rev()
    current = [ref for ref in matching if ref.baseline_sha == head]
    commits = sorted({ref.baseline_sha[:7] for ref in matching})
    if current and len(commits) > 1:
        logger.warning(
            "%s: uses the experiments of the current commit (%d of %d that match)",
            *(pattern, len(current), len(matching)),
        )
    elif len(commits) > 1:
        for ref in matching:
            if len(same := [other for other in matching if other.name == ref.name]) > 1:
                raise ambiguous(git, str(ref.name), same)
        logger.warning("%s: mixes experiments of several commits: %s", pattern, ", ".join(commits))
    return current or matching


def experiments() -> list[Revision]:
    """List the experiments that started from the current commit, by name."""
    with _open_repo() as repo:
        head = repo.scm.get_rev()
        refs = [ref for ref in exp_refs(repo.scm) if ref.baseline_sha == head and ref.name]
        return [
            Revision(str(ref.name), repo.scm.get_ref(str(ref)))
            for ref in sorted(refs, key=lambda ref: str(ref.name))
        ]


def _tested(lock: bytes) -> tuple[str | None, str | None]:
    """The hashes of the test split and of the model of the evaluate stage, from dvc.lock."""
    # A YAML parser takes up to a second per file, and a clone may have hundreds of versions.
    stage = re.search(rb"^  evaluate:\n((?:    .*\n)*)", lock, re.MULTILINE)
    deps = re.findall(
        rb"- path: (\S+)\n      hash: md5\n      md5: (\w+)", stage[1] if stage else b""
    )
    hashes = {path.decode(): md5.decode() for path, md5 in deps}
    return hashes.get("data/splits/test.txt"), hashes.get("models/model.safetensors")


def _versions(git: Git, path: str) -> list[bytes]:
    """All versions of a file in the commits and experiments of a clone, as far as it has them."""
    repo = git.pygit2.repo
    commits = repo.walk(repo.head.target)
    for ref in repo.references.objects:
        with suppress(InvalidSpecError):  # a tag of something else than a commit
            commits.push(ref.peel(Commit).id)
    versions = {}
    for commit in commits:
        with suppress(KeyError):  # the file did not exist, or a partial clone lacks it
            blob = commit.tree[path]
            versions[blob.id] = blob.data
    return list(versions.values())


@contextmanager
def _open_repo() -> Iterator[Repo]:
    """Open the project of the current directory.

    Raises:
        UserError: there is none, or Git refuses it. Also for errors of Git within the context.
    """
    try:
        with Repo() as repo:
            yield repo
    except NotDvcRepoError:
        raise UserError(
            "no DVC project here: run the command in a Git clone of the project"
        ) from None
    except GitError as error:
        raise UserError(f"Git: {error}; `git status` prints the remedy") from None
    except (SCMError, GitBackendError) as error:
        raise UserError(f"Git: {error}; run the command in a Git clone of the project") from None
