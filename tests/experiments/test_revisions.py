"""Reading and checking the files of a revision."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from dvc.repo import Repo
from PIL import Image

from cocoseg.core.errors import UserError
from cocoseg.core.images import read_rgb
from cocoseg.experiments.revisions import WORKSPACE, experiments, find_revisions, oriented_rgb
from tests.revisions import DirectoryRevision, write_revision

LABELS = np.zeros((40, 60), np.uint8)


@pytest.fixture
def revision(tmp_path: Path) -> DirectoryRevision:
    return write_revision(
        tmp_path / "run", {"a": LABELS}, {"a": LABELS}, trained_on=["b", "c\x0bd"], epochs=2
    )


def test_a_run_has_its_counts_and_training_images(revision: DirectoryRevision) -> None:
    run = revision.scored_run("val")
    assert run.name == "run"
    assert run.counts.confusions == {"a": [[2400, 0, 0], [0, 0, 0], [0, 0, 0]]}
    assert run.trained_on == {"b", "c\x0bd"}


@pytest.mark.parametrize(
    "change",
    [
        {"confusions": {"a": [[1, 0], [0, 1]]}},
        {"confusions": {"a": [[1, 0, 0], [0, 1, 0], [0, 0]]}},
        {"confusions": {}, "ground_truths": {}},
        {"ground_truths": {"b": "hash"}},
        {"ground_truths": {}},
        {"classes": "cat"},
    ],
)
def test_inconsistent_counts_are_an_error(revision: DirectoryRevision, change: object) -> None:
    path = revision.directory / "metrics/val_images.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))  # type: ignore[operator]
    with pytest.raises(UserError, match=r"run: metrics/val_images\.json is damaged"):
        revision.scored_run("val")


def test_counts_of_an_earlier_version_are_an_error_with_a_remedy(
    revision: DirectoryRevision,
) -> None:
    path = revision.directory / "metrics/val_images.json"
    path.write_text(path.read_text().replace("ground_truths", "truths"))
    with pytest.raises(UserError) as raised:
        revision.scored_run("val")
    assert "from an earlier version of this project" in str(raised.value)
    assert "`git checkout 0123456`" in str(raised.value)
    command = "`dvc repro --force --single-item evaluate`"
    assert command in str(raised.value)
    workspace = DirectoryRevision(WORKSPACE, None, revision.directory)
    with pytest.raises(UserError) as raised:
        workspace.scored_run("val")
    assert command in str(raised.value) and "git checkout" not in str(raised.value)


@pytest.mark.parametrize("content", ["", "image_id,annotation_id\n1,2\n"])
def test_damaged_label_errors_are_an_error(revision: DirectoryRevision, content: str) -> None:
    (revision.directory / "metrics/label_errors.csv").write_text(content)
    with pytest.raises(UserError, match=r"metrics/label_errors\.csv is damaged"):
        revision.label_errors()


def test_outdated_parameters_are_those_of_the_scores(revision: DirectoryRevision) -> None:
    lock = "stages:\n" + "".join(
        f"  {stage}:\n    params:\n      params.yaml:\n        {params}\n"
        for stage, params in {
            "train": "train: {epochs: 1, lr: 0.1}",
            "evaluate": "evaluate.tiles: full",
            "export": "export.opset: 17",
            "report": "report.title: x",
        }.items()
    )
    (revision.directory / "dvc.lock").write_text(lock + "  download:\n    cmd: x\n")
    assert revision.outdated_params() == ["train.epochs=1", "evaluate.tiles=full"]


def test_an_image_is_found_by_its_stem_with_any_extension_or_none(
    revision: DirectoryRevision,
) -> None:
    images = revision.directory / "data/images"
    for number, name in enumerate(("ab.png", "x", "y.tar.png")):
        color = (50 + number, 0, 0)
        Image.new("RGB", (60, 40), color).save(images / name, format="PNG")
        stem = name.removesuffix(".png")
        assert revision.image(stem, LABELS)[0, 0].tolist() == list(color)
    with pytest.raises(UserError, match=r"run has no data/images/nowhere\.jpg"):
        revision.image("nowhere", LABELS)


def test_a_damaged_mask_is_an_error(revision: DirectoryRevision) -> None:
    path = revision.directory / "data/masks/a.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"run: data/masks/a\.png is damaged; remove it"):
        revision.ground_truth("a")


def test_an_image_of_16_bits_has_the_pixels_of_read_rgb(tmp_path: Path) -> None:
    gray = np.linspace(0, 65535, 60 * 40).reshape(40, 60).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    with Image.open(tmp_path / "gray.png") as image:
        assert np.array_equal(oriented_rgb(image, LABELS), read_rgb(tmp_path / "gray.png"))


def test_the_exif_orientation_is_applied_only_if_the_labels_follow_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:10] = 255
    Image.fromarray(stored).save(tmp_path / "rotated.png", exif=exif)
    with Image.open(tmp_path / "rotated.png") as image:
        assert np.array_equal(oriented_rgb(image, LABELS), stored)
        assert np.array_equal(oriented_rgb(image, LABELS.T), np.rot90(stored, -1))


def test_outside_a_project_the_error_says_where_to_run_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for find in (lambda: find_revisions("main"), lambda: find_revisions(WORKSPACE), experiments):
        with pytest.raises(UserError, match="no DVC project here"):
            find()


def git(directory: Path, *command: str) -> str:
    """Run Git in a directory and return what it prints."""
    author = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    run = subprocess.run(
        ["git", *author, *command], cwd=directory, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def commit(project: Path, epochs: int) -> str:
    """Commit other parameters and return the hash of the commit."""
    (project / "params.yaml").write_text(f"train: {{epochs: {epochs}}}\n")
    git(project, "add", "-A")
    git(project, "commit", "-qm", f"{epochs} epochs")
    return git(project, "rev-parse", "HEAD")


def add_experiment(project: Path, name: str, baseline: str, sha: str) -> None:
    """Make a commit an experiment that started from another commit."""
    git(project, "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", sha)


def epochs_of(name: str) -> dict[str, int]:
    return {found.name: found.params()["train"]["epochs"] for found in find_revisions(name)}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project in a subdirectory of a repository, with a commit; the working directory."""
    project = tmp_path / "repository" / "segmentation"
    (project / "docs").mkdir(parents=True)
    (project / "docs/index.md").write_text("")
    git(tmp_path / "repository", "init", "-q", "-b", "main")
    monkeypatch.chdir(project)
    Repo.init(subdir=True).close()
    commit(project, 1)
    return project


def commit_lock(project: Path, test: str, model: str, name: str = "evaluate") -> str:
    """Commit a dvc.lock with the hashes of the test split and the model."""
    deps = {"data/splits/test.txt": test, "models/model.safetensors": model}
    lines = [f"    - path: {p}\n      hash: md5\n      md5: {md5}\n" for p, md5 in deps.items()]
    export = "  export:\n    deps:\n    - path: models/model.safetensors\n      md5: other\n"
    lock = f"stages:\n  {name}:\n    cmd: x\n    deps:\n{''.join(lines)}{export}"
    (project / "dvc.lock").write_text(lock)
    git(project, "add", "-A")
    git(project, "commit", "--allow-empty", "-qm", model)
    return git(project, "rev-parse", "HEAD")


def test_models_scored_on_the_same_test_images_are_counted_once_in_all_branches_and_experiments(
    project: Path,
) -> None:
    first = commit_lock(project, "aaaa", "1111")
    experiment = commit_lock(project, "aaaa", "2222")
    git(project, "reset", "-q", "--hard", first)
    add_experiment(project, "exp", first, experiment)
    git(project, "checkout", "-q", "-b", "branch")
    commit_lock(project, "aaaa", "3333")
    git(project, "checkout", "-q", "main")
    commit_lock(project, "aaaa", "1111")
    (head,) = find_revisions("HEAD")
    assert head.models_tested() == 3
    commit_lock(project, "bbbb", "4444")
    (other,) = find_revisions("HEAD")
    assert other.models_tested() == 1
    commit_lock(project, "bbbb", "4444", name="unfinished")
    (unfinished,) = find_revisions("HEAD")
    assert unfinished.models_tested() == 0
    assert head.models_tested() == 3


def test_a_project_in_a_subdirectory_of_a_repository_is_read(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "params.yaml").write_text("train: {epochs: 2}\n")
    for directory in (project, project / "docs"):
        monkeypatch.chdir(directory)
        assert epochs_of("HEAD") == {"HEAD": 1}
        assert epochs_of("mai?") == {"main": 1}
        assert epochs_of(WORKSPACE) == {WORKSPACE: 2}
        assert find_revisions("main")[0].file_names("docs") == ["index.md"]


def test_a_commit_without_the_project_is_an_error(project: Path) -> None:
    empty = git(project, "commit-tree", "-m", "empty", git(project, "mktree"))
    with pytest.raises(UserError, match=f"{empty} has no DVC project in /segmentation"):
        find_revisions(empty)[0].params()


def test_a_name_of_experiments_of_several_commits_is_ambiguous_unless_one_is_current(
    project: Path,
) -> None:
    first = git(project, "rev-parse", "HEAD")
    experiment = commit(project, 2)
    second = commit(project, 3)
    add_experiment(project, "seed-1", first, experiment)
    add_experiment(project, "seed-1", second, second)
    assert epochs_of("seed-1") == {"seed-1": 3}
    commit(project, 4)
    for name in ("seed-1", "seed-*"):
        with pytest.raises(UserError, match="seed-1 is ambiguous") as raised:
            find_revisions(name)
        assert f"{experiment[:7]} (started from {first[:7]})" in str(raised.value)
    assert epochs_of(experiment[:7]) == {experiment[:7]: 2}


def test_a_pattern_prefers_the_experiments_of_the_current_commit(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = git(project, "rev-parse", "HEAD")
    second = commit(project, 2)
    for name, baseline in (("a-1", first), ("a-2", first), ("a-1", second)):
        add_experiment(project, name, baseline, baseline)
    assert epochs_of("a-*") == {"a-1": 2}
    assert "a-*: uses the experiments of the current commit (1 of 3 that match)" in caplog.text
    caplog.clear()
    assert epochs_of("a-2*") == {"a-2": 1}
    assert not caplog.records


def test_a_pattern_warns_if_it_mixes_experiments_of_several_commits(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = git(project, "rev-parse", "HEAD")
    second = commit(project, 2)
    commit(project, 3)
    add_experiment(project, "a-1", first, first)
    add_experiment(project, "a-2", second, second)
    assert epochs_of("a-*") == {"a-1": 1, "a-2": 2}
    commits = ", ".join(sorted([first[:7], second[:7]]))
    assert f"a-*: mixes experiments of several commits: {commits}" in caplog.text


def test_the_remedy_for_a_partial_clone_fetches_the_missing_files(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(project, 2)
    git(project, "config", "uploadpack.allowFilter", "true")
    url = project.parent.as_uri()
    git(tmp_path, "clone", "-q", "--filter=blob:none", url, "partial")
    clone = tmp_path / "partial/segmentation"
    monkeypatch.chdir(clone)
    assert epochs_of("HEAD") == {"HEAD": 2}
    (before,) = find_revisions("HEAD~1")
    with pytest.raises(UserError, match="HEAD~1: this clone is partial") as raised:
        before.params()
    remedy = str(raised.value).split("`")[1]
    git(clone, *remedy.split()[1:])
    assert epochs_of("HEAD~1") == {"HEAD~1": 1}


def test_errors_of_git_are_reported_with_its_reason(project: Path) -> None:
    if os.getuid() == 0:
        os.chown(project.parent, 12345, 12345)
        with pytest.raises(UserError, match=r"^Git: .* not owned by current user; `git status`"):
            find_revisions("HEAD")
    shutil.rmtree(project.parent / ".git")
    with pytest.raises(UserError, match=r"^Git: .* is not a git repository; run the command in"):
        find_revisions(WORKSPACE)
