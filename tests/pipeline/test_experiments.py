"""Experiments in the workspace, in a temporary directory and in the queue, and their comparison."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.repo import Repo

from tests import wait_until
from tests.contract import outputs

from .conftest import Project, Variants, experiments, hashes, stages_restored, stages_run

pytestmark = pytest.mark.xdist_group("variants")


@pytest.fixture(scope="module")
def queued(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Another project, in which the queue ran `seed-1` and `ignore` at the same time."""
    project = finished.copy(tmp_path_factory.mktemp("queued") / "project")
    for name, *job in (
        ("seed-1", "train.seed=1", "train"),
        ("ignore", "mask.overlap=ignore", "evaluate"),
    ):
        project.succeed("dvc", "exp", "run", "--queue", "--name", name, "-S", *job)
    project.succeed("dvc", "queue", "start", "--jobs", "2")
    try:
        with Repo(str(project.directory)) as repo:
            queue = repo.experiments.celery_queue
            wait_until(lambda: len(experiments(project)) == 2 or any(queue.iter_failed()))
        assert experiments(project).keys() == {"seed-1", "ignore"}
        yield project
    finally:
        project.run("dvc", "queue", "stop", "--kill")


def test_an_experiment_runs_only_the_stages_affected_by_its_parameter(variants: Variants) -> None:
    assert stages_run(variants.printed["ignore"]) == ["mask", "train", "evaluate"]
    assert stages_run(variants.printed["seed-1"]) == ["train", "evaluate"]
    assert not any(map(stages_restored, variants.printed.values()))


def test_an_experiment_in_a_temporary_directory_leaves_the_workspace_unchanged(
    variants: Variants,
) -> None:
    assert variants.status_after_temp == ""
    assert hashes(variants.project, "ignore").keys() == hashes(variants.project, "seed-0").keys()


def test_concurrent_experiments_have_the_same_results_as_sequential_ones(
    variants: Variants, queued: Project, finished: Project
) -> None:
    for name, stages in (("seed-1", ["train"]), ("ignore", ["mask", "train", "evaluate"])):
        alone, concurrent = hashes(variants.project, name), hashes(queued, name)
        written = {out for stage in stages for out in outputs(stage)} & alone.keys()
        assert "models/model.safetensors" in written
        assert {out: concurrent[out] for out in written} == {out: alone[out] for out in written}
    assert hashes(queued, "seed-1") != hashes(queued, "ignore")
    assert queued.results() == finished.results()
    assert queued.succeed("git", "status", "--porcelain") == ""


def test_earlier_parameters_restore_results_from_the_cache(
    variants: Variants, finished: Project, tmp_path: Path
) -> None:
    project = variants.project.copy(tmp_path / "project")
    before = finished.results()
    for change, target, stages in [
        ({"train.seed": 1}, ["evaluate"], ["train", "evaluate"]),
        ({"train.seed": 0, "mask.overlap": "ignore"}, ["evaluate"], ["mask", "train", "evaluate"]),
        ({"mask.overlap": "last"}, [], ["mask", "train", "evaluate"]),
    ]:
        project.set_params(change)
        output = project.succeed("dvc", "repro", *target)
        assert stages_run(output) == []
        assert stages_restored(output) == stages
        assert (project.results() == before) == ("last" in change.values())
    assert project.succeed("git", "status", "--porcelain") == ""


def test_exp_show_lists_the_parameters_and_scores_that_differ(variants: Variants) -> None:
    table = variants.project.succeed("dvc", "exp", "show", "--only-changed", "--csv")
    rows = {row["Experiment"] or row["rev"]: row for row in csv.DictReader(table.splitlines())}
    assert {name: (rows[name]["train.seed"], rows[name]["mask.overlap"]) for name in rows} == {
        "workspace": ("0", "last"),
        "main": ("0", "last"),
        "seed-0": ("0", "last"),
        "seed-1": ("1", "last"),
        "ignore": ("0", "ignore"),
    }
    columns = rows["ignore"]
    assert not [name for name in columns if name.startswith(("fraction.", "images_"))]
    assert float(columns["metrics/val.json:miou"]) > 0
    names = list(columns)
    assert names.index("metrics/val.json:miou") < names.index("metrics/test.json:miou")
    assert "split.seed" not in columns


def test_dvc_diff_commands_compare_an_applied_experiment_with_the_commit_before(
    variants: Variants, tmp_path: Path
) -> None:
    project = variants.project.copy(tmp_path / "project")
    project.succeed("dvc", "exp", "apply", "ignore")
    assert "Data and pipelines are up to date." in project.succeed("dvc", "repro", "evaluate")
    assert project.results("models") != variants.project.results("models")
    project.commit("overlaps are ignored")

    params = json.loads(project.succeed("dvc", "params", "diff", "HEAD~1", "HEAD", "--json"))
    assert params == {"params.yaml": {"mask.overlap": {"old": "last", "new": "ignore"}}}

    metrics = json.loads(project.succeed("dvc", "metrics", "diff", "HEAD~1", "HEAD", "--json"))
    old, new = (
        json.loads(project.succeed("git", "show", f"{commit}:metrics/test.json"))["miou"]
        for commit in ("HEAD~1", "HEAD")
    )
    assert metrics["metrics/test.json"]["miou"] == {
        "old": old,
        "new": new,
        "diff": pytest.approx(new - old),
    }
    assert set(metrics) == {"metrics/val.json", "metrics/test.json"}, "only scores are metrics"
    counts = ("metrics/mask.json", "metrics/filter.json")
    diff = ("dvc", "metrics", "diff", "HEAD~1", "HEAD", "--json", "--targets", *counts)
    metrics = json.loads(project.succeed(*diff))
    assert metrics["metrics/mask.json"]["fraction.ignored"]["diff"] > 0
    assert "metrics/filter.json" not in metrics

    project.succeed("dvc", "plots", "diff", "HEAD~1", "HEAD", "--out", "shown")
    page = (project.directory / "shown/index.html").read_text(encoding="utf-8")
    for name in ("loss.tsv", "IoU by class", "Confusion", "Reliability"):
        assert name in page
    for commit in ("HEAD~1", "HEAD"):
        assert f'"rev": "{commit}"' in page
        assert len(list((project.directory / "shown/static").glob(f"{commit}_*.png"))) == 2
