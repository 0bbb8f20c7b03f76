"""The file that `train.weights` names: a file of the user, or the model of an earlier run.

copy_initial_weights("run:v1", MODEL, Path("models/initial"), project=Path("."))
"""

import shutil
from pathlib import Path

from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_directory, flat_name

_RUN = "run:"


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
    # Imported late, because importing DVC takes a second.
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.experiments.utils import exp_refs

    from cocoseg.sources.revision_files import resolve_commit, revision_files

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
