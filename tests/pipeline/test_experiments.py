"""Variants of a run: here, in a temporary folder, two at a time, and how they are compared."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests import wait_until

from .conftest import Project, stages_restored, stages_run

pytestmark = pytest.mark.xdist_group("experiments")

SEED = ["--name", "seed", "--set-param", "split.seed=1"]
VOID = ["--name", "void", "--set-param", "mask.overlap=void"]


@dataclass
class Variants:
    """A project with the experiments `seed` and `void`, one run after the other."""

    project: Project
    printed: dict[str, str]
    before: dict[str, str]
    """The results of the commit from which they differ."""


@pytest.fixture(scope="module")
def variants(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Variants:
    project = finished.copy(tmp_path_factory.mktemp("variants") / "project")
    before = project.results()
    printed = {
        "void": project.succeed("dvc", "exp", "run", "--temp", *VOID),
        "left by void": project.succeed("git", "status", "--porcelain"),
    }
    assert project.results() == before, "an experiment with --temp has changed the workspace"
    printed["seed"] = project.succeed("dvc", "exp", "run", *SEED)
    return Variants(project, printed, before)


@pytest.fixture(scope="module")
def queued(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Another project, in which two jobs of DVC's queue have run them at the same time."""
    project = finished.copy(tmp_path_factory.mktemp("queued") / "project")
    for variant in (SEED, VOID):
        project.succeed("dvc", "exp", "run", "--queue", *variant)
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


def hashes(project: Project, name: str) -> dict[str, str]:
    """The hash of every output of an experiment, but for what differs from run to run."""
    lock = yaml.safe_load(project.succeed("git", "show", f"{experiments(project)[name]}:dvc.lock"))
    outs = [out for stage in lock["stages"].values() for out in stage["outs"]]
    return {
        out["path"]: out["md5"]
        for out in outs
        if not out["path"].startswith(("metrics/machine/", "metrics/report.html"))
    }


def test_an_experiment_runs_the_stages_that_depend_on_its_parameter(variants: Variants) -> None:
    model = ["train", "evaluate", "export", "report"]
    assert stages_run(variants.printed["seed"]) == ["split", "inspect", *model]
    assert stages_run(variants.printed["void"]) == ["mask", "inspect", *model]
    assert not any(map(stages_restored, variants.printed.values()))


def test_an_experiment_in_a_temporary_folder_leaves_the_workspace_alone(
    variants: Variants,
) -> None:
    assert variants.printed["left by void"] == ""
    assert hashes(variants.project, "void")["data/images"]


def test_two_jobs_at_a_time_give_what_each_gives_alone(variants: Variants, queued: Project) -> None:
    for name in ("seed", "void"):
        alone = hashes(variants.project, name)
        assert len(alone) > 15
        assert hashes(queued, name) == alone
    assert hashes(queued, "seed") != hashes(queued, "void")
    assert queued.results() == variants.before
    assert queued.succeed("git", "status", "--porcelain") == ""


def test_going_back_to_earlier_parameters_runs_nothing(variants: Variants, tmp_path: Path) -> None:
    project = variants.project.copy(tmp_path / "project")
    for change, stages in [
        ({"split.seed": 0}, ["split", "inspect", "train", "evaluate", "export", "report"]),
        ({"mask.overlap": "void"}, ["mask", "inspect", "train", "evaluate", "export", "report"]),
        ({"mask.overlap": "last"}, ["mask", "inspect", "train", "evaluate", "export", "report"]),
    ]:
        project.set_params(change)
        output = project.succeed("dvc", "repro")
        assert stages_run(output) == []
        assert stages_restored(output) == stages
        assert (project.results() == variants.before) == ("void" not in change.values())
    assert project.succeed("git", "status", "--porcelain") == ""


def test_the_table_of_experiments_has_what_differs(variants: Variants) -> None:
    table = variants.project.succeed("dvc", "exp", "show", "--only-changed", "--csv")
    rows = {row["Experiment"] or row["rev"]: row for row in csv.DictReader(table.splitlines())}
    assert {name: (rows[name]["split.seed"], rows[name]["mask.overlap"]) for name in rows} == {
        "workspace": ("1", "last"),
        "main": ("0", "last"),
        "seed": ("1", "last"),
        "void": ("0", "void"),
    }
    assert rows["void"]["share.void"] != rows["main"]["share.void"]
    assert float(rows["void"]["miou"]) > 0
    assert "train.seed" not in rows["void"]


def test_an_applied_experiment_compares_with_the_commit_before(
    variants: Variants, tmp_path: Path
) -> None:
    project = variants.project.copy(tmp_path / "project")
    project.succeed("dvc", "exp", "apply", "void")
    assert "Data and pipelines are up to date." in project.succeed("dvc", "repro")
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
    assert metrics["metrics/mask.json"]["share.void"]["diff"] > 0
    assert "metrics/filter.json" not in metrics

    project.succeed("dvc", "plots", "diff", "HEAD~1", "HEAD", "--out", "shown")
    page = (project.folder / "shown/index.html").read_text(encoding="utf-8")
    for name in ("loss.tsv", "IoU by class", "Confusion", "Reliability"):
        assert name in page
    for commit in ("HEAD~1", "HEAD"):
        assert f'"rev": "{commit}"' in page
        assert len(list((project.folder / "shown/static").glob(f"{commit}_*.png"))) == 2
