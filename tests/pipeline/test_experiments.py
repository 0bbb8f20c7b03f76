"""Variants of a run: here, in a temporary folder, two at a time, and how they are compared."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import wait_until
from tests.contract import outputs

from .conftest import Project, Variants, stages_restored, stages_run

pytestmark = pytest.mark.xdist_group("variants")


@pytest.fixture(scope="module")
def queued(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Another project, in which two jobs of DVC's queue have run them at the same time."""
    project = finished.copy(tmp_path_factory.mktemp("queued") / "project")
    for name, *job in (
        ("seed-1", "train.seed=1", "train"),
        ("void", "mask.overlap=void", "evaluate"),
    ):
        project.succeed("dvc", "exp", "run", "--queue", "--name", name, "-S", *job)
    project.succeed("dvc", "queue", "start", "--jobs", "2")
    try:
        wait_until(lambda: len(experiments(project)) == 2)
        yield project
    finally:
        project.run("dvc", "queue", "stop", "--kill")


def experiments(project: Project) -> dict[str, str]:
    """The Git references of the finished experiments by their names."""
    refs = project.succeed("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    return {ref.rpartition("/")[2]: ref for ref in refs if not ref.startswith("refs/exps/exec")}


def lock_of(project: Project, name: str) -> Any:
    """The dvc.lock of an experiment."""
    text = project.succeed("git", "show", f"{experiments(project)[name]}:dvc.lock")
    return yaml.safe_load(text)


def hashes(project: Project, name: str) -> dict[str, str]:
    """The hash of every output of an experiment, but for what differs from run to run."""
    outs = [out for stage in lock_of(project, name)["stages"].values() for out in stage["outs"]]
    return {
        out["path"]: out["md5"]
        for out in outs
        if not out["path"].startswith(("metrics/machine/", "metrics/report.html"))
    }


def test_an_experiment_runs_the_stages_that_depend_on_its_parameter(variants: Variants) -> None:
    assert stages_run(variants.printed["void"]) == ["mask", "train", "evaluate"]
    assert stages_run(variants.printed["seed-1"]) == ["train", "evaluate"]
    assert not any(map(stages_restored, variants.printed.values()))


def test_an_experiment_in_a_temporary_folder_leaves_the_workspace_alone(
    variants: Variants,
) -> None:
    assert variants.printed["status"] == ""
    assert hashes(variants.project, "void")["data/images"]


def test_two_jobs_at_a_time_give_what_each_gives_alone(
    variants: Variants, queued: Project, finished: Project
) -> None:
    for name, stages in (("seed-1", ["train"]), ("void", ["mask", "train", "evaluate"])):
        alone, together = hashes(variants.project, name), hashes(queued, name)
        made = {out for stage in stages for out in outputs(stage)} & alone.keys()
        assert "models/model.safetensors" in made
        assert {out: together[out] for out in made} == {out: alone[out] for out in made}
    assert hashes(queued, "seed-1") != hashes(queued, "void")
    assert queued.results() == finished.results()
    assert queued.succeed("git", "status", "--porcelain") == ""


def test_going_back_to_earlier_parameters_runs_nothing(
    variants: Variants, finished: Project, tmp_path: Path
) -> None:
    project = variants.project.copy(tmp_path / "project")
    before = finished.results()
    for change, target, stages in [
        ({"train.seed": 1}, ["evaluate"], ["train", "evaluate"]),
        ({"train.seed": 0, "mask.overlap": "void"}, ["evaluate"], ["mask", "train", "evaluate"]),
        ({"mask.overlap": "last"}, [], ["mask", "train", "evaluate"]),
    ]:
        project.set_params(change)
        output = project.succeed("dvc", "repro", *target)
        assert stages_run(output) == []
        assert stages_restored(output) == stages
        assert (project.results() == before) == ("last" in change.values())
    assert project.succeed("git", "status", "--porcelain") == ""


def test_the_table_of_experiments_has_what_differs(variants: Variants) -> None:
    table = variants.project.succeed("dvc", "exp", "show", "--only-changed", "--csv")
    rows = {row["Experiment"] or row["rev"]: row for row in csv.DictReader(table.splitlines())}
    assert {name: (rows[name]["train.seed"], rows[name]["mask.overlap"]) for name in rows} == {
        "workspace": ("0", "last"),
        "main": ("0", "last"),
        "seed-0": ("0", "last"),
        "seed-1": ("1", "last"),
        "void": ("0", "void"),
    }
    assert not [
        name for name in rows["void"] if name.startswith(("share.", "images_", "train.images"))
    ]
    assert float(rows["void"]["miou"]) > 0
    assert "split.seed" not in rows["void"]


def test_an_applied_experiment_compares_with_the_commit_before(
    variants: Variants, tmp_path: Path
) -> None:
    project = variants.project.copy(tmp_path / "project")
    project.succeed("dvc", "exp", "apply", "void")
    assert "Data and pipelines are up to date." in project.succeed("dvc", "repro", "evaluate")
    assert project.results("models") != variants.project.results("models")
    project.commit("void where instances overlap")

    params = json.loads(project.succeed("dvc", "params", "diff", "HEAD~1", "HEAD", "--json"))
    assert params == {"params.yaml": {"mask.overlap": {"old": "last", "new": "void"}}}

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
    assert list(metrics) == ["metrics/test.json"], "only scores are metrics"
    counts = ("metrics/mask.json", "metrics/filter.json")
    diff = ("dvc", "metrics", "diff", "HEAD~1", "HEAD", "--json", "--targets", *counts)
    metrics = json.loads(project.succeed(*diff))
    assert metrics["metrics/mask.json"]["share.void"]["diff"] > 0
    assert "metrics/filter.json" not in metrics

    project.succeed("dvc", "plots", "diff", "HEAD~1", "HEAD", "--out", "shown")
    page = (project.directory / "shown/index.html").read_text(encoding="utf-8")
    for name in ("loss.tsv", "IoU by class", "Confusion", "Reliability"):
        assert name in page
    for commit in ("HEAD~1", "HEAD"):
        assert f'"rev": "{commit}"' in page
        assert len(list((project.directory / "shown/static").glob(f"{commit}_*.png"))) == 2
