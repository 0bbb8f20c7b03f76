"""Earlier results are restored from DVC's cache instead of being computed again."""

import shutil
from contextlib import chdir
from pathlib import Path

import pytest
from dvc.repo import Repo

from tests.contract import STAGES, outputs

from .conftest import Project, stages_restored, stages_run

pytestmark = [
    pytest.mark.xdist_group("sharing"),
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # from dvc
]


@pytest.fixture(scope="module")
def whole(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the finished project, in which tests delete and restore files."""
    return finished.copy(tmp_path_factory.mktemp("whole") / "project")


def delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def test_an_earlier_selection_reruns_only_the_images_stage(project: Project) -> None:
    data = ["dvc", "repro", "mask", "split"]
    before = project.results("data", "dvc.lock")
    project.set_params({"filter.max_instances": 10_000, "filter.max_images": 30})
    assert stages_run(project.succeed(*data)) == [
        *("filter", "images", "mask", "near_duplicates", "split"),
    ]
    assert len(project.results("data/images")) == 30

    # Other parameters with the same selection rerun only the filter.
    project.set_params({"filter.max_instances": 20_000})
    assert stages_run(project.succeed(*data)) == ["filter"]

    project.set_params({"filter.max_instances": 10, "filter.max_images": 40})
    output = project.succeed(*data)
    assert stages_run(output) == ["images"]  # `persist: true`: not in the run cache
    assert stages_restored(output) == ["filter", "mask", "near_duplicates", "split"]
    assert project.results("data", "dvc.lock") == before


@pytest.mark.parametrize("stage", STAGES)
def test_deleted_outputs_are_restored_without_a_run(
    whole: Project, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    before = {out: whole.results(out) for out in outputs(stage)}
    assert all(files for out, files in before.items() if out != "models/initial")  # an empty one
    for out in before:
        delete(whole.directory / out)
    monkeypatch.setenv("PATH", "")  # no stage could run
    with chdir(whole.directory), Repo() as repo:
        if stage == "images":
            repo.checkout(list(before))
        else:
            repo.reproduce(stage, single_item=True)
    assert {out: whole.results(out) for out in before} == before


def test_all_deleted_results_are_restored_without_a_run(whole: Project) -> None:
    before = whole.results()
    for directory in ("data", "models", "metrics"):
        delete(whole.directory / directory)
    whole.succeed("git", "checkout", "data", "models", "metrics")
    whole.succeed("dvc", "checkout")
    assert "Data and pipelines are up to date." in whole.succeed("dvc", "repro")
    assert whole.results() == before
