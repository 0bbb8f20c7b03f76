"""Files of other commits, read through DVC without a checkout, and the initial weights.

with Repo() as repo:
    files = revision_files(repo, "v1", resolve_commit(repo.scm, "v1"))
    files.read_bytes("/models/model.safetensors")

copy_initial_weights("run:v1", MODEL, Path("models/initial"), project=Path("."))
"""

import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dulwich.objects import S_ISGITLINK
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.fs import GitFileSystem
from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo
from dvc.repo.experiments.utils import exp_refs
from dvc.scm import SCM, RevError, resolve_rev
from scmrepo.git import Git

from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_directory, flat_name

_RUN = "run:"


def resolve_commit(git: Git, name: str) -> str:
    """Find the commit of a commit, branch, tag or experiment.

    Raises:
        UserError: there is none, or several experiments have the name.
    """
    try:
        sha: str = resolve_rev(git, name)
    except RevError:
        if same := [ref for ref in exp_refs(git) if ref.name == name]:
            raise ambiguous(git, name, same) from None
        raise UserError(
            f"{name}: no such commit, branch, tag or experiment; list them with "
            "`git log --oneline` and `dvc exp list -A`, and fetch missing ones with "
            "`git fetch` or `dvc exp pull`"
        ) from None
    return sha


def ambiguous(git: Git, name: str, refs: Sequence[ExpRefInfo]) -> UserError:
    """The error for a name that experiments of several commits have."""
    known = [f"{git.get_ref(str(ref))[:7]} (started from {ref.baseline_sha[:7]})" for ref in refs]
    return UserError(
        f"{name} is ambiguous: experiments of {len(refs)} commits have this name. Use the hash of "
        f"one: {', '.join(known)}"
    )


def revision_files(repo: Repo, name: str, commit: str) -> DVCFileSystem:
    """Open the files of a commit: those in Git, and those in DVC's cache or a current remote.

    Args:
        repo: the project, which may be a subdirectory of its Git repository.
        name: the name of the revision, for messages.
        commit: the hash of the commit.

    Returns:
        A file system whose root is the directory of the project.

    Raises:
        UserError: the commit has no DVC project there, or a partial clone lacks some of its files.
    """
    git_root = repo.scm.root_dir
    directory = PurePosixPath("/", Path(repo.root_dir).relative_to(git_root).as_posix())
    # The commit may be older than the remote.
    remotes = {section: dict(repo.config[section]) for section in ("core", "remote")}
    git = SCM(git_root)
    if not _has_all_objects(git, commit):
        raise UserError(
            f"{name}: this clone is partial and lacks files of {commit[:7]}: run "
            "`git fetch --refetch --no-filter`"
        )
    try:
        # DVCFileSystem(rev=...) would read the root of the Git repository instead.
        project = Repo(
            str(directory), fs=GitFileSystem(scm=git, rev=commit), scm=git, config=remotes
        )
    except NotDvcRepoError:
        raise UserError(f"{name} has no DVC project in {directory}") from None
    return DVCFileSystem(project)


def _has_all_objects(git: Git, commit: str) -> bool:
    """Whether all files of a commit are in the clone: libgit2, unlike Git, fetches none."""
    store = git.dulwich.repo.object_store
    try:
        entries = store.iter_tree_contents(store[commit.encode()].tree)
        return all(S_ISGITLINK(entry.mode) or entry.sha in store for entry in entries)
    except KeyError:  # a directory is missing
        return False


def copy_initial_weights(weights: str, model: str, directory: Path, project: Path) -> None:
    """Copy the file that `train.weights` names into a directory, which is empty if it names none.

    Args:
        weights: `run:REVISION`, the path of a file, or a word such as `imagenet`.
        model: the path of the model of a run in the project.
        directory: the directory, which is replaced.
        project: the directory of the Git repository that has the revisions.

    Raises:
        UserError: the file, the revision or its model does not exist, or the revision moves.
    """
    with atomic_directory(directory) as temporary:
        if weights.startswith(_RUN):
            revision = weights.removeprefix(_RUN)
            copy = temporary / f"{flat_name(revision)}.safetensors"
            _copy_model_of_revision(revision, model, copy, project)
        elif "/" in weights:
            try:
                shutil.copyfile(weights, temporary / Path(weights).name)
            except FileNotFoundError:
                raise UserError(
                    f"train.weights: {weights} not found; copy it there, and for DVC's queue and "
                    f"--temp run `dvc add {weights} && git add weights`"
                ) from None


def _copy_model_of_revision(revision: str, model: str, copy: Path, project: Path) -> None:
    name = f"train.weights: {_RUN}{revision}"
    with Repo(str(project)) as repo:
        try:
            commit = resolve_commit(repo.scm, revision)
        except UserError as error:
            raise UserError(f"train.weights: {_RUN}{error}") from None
        names = {*repo.scm.list_tags(), *(ref.name for ref in exp_refs(repo.scm))}
        if not commit.startswith(revision) and revision not in names:
            raise UserError(
                f"{name} may name another commit later; use its present commit, "
                f"{_RUN}{commit[:7]}, a tag or an experiment"
            )
        files = revision_files(repo, name, commit)
    try:
        files.get_file(f"/{model}", str(copy))
    except (OSError, DvcException) as error:
        raise UserError(
            f"{name} has no {model} in DVC's cache or a remote; run `dvc push` in the clone where "
            "it was trained"
        ) from error
