"""The stages that rerun when a parameter, a file of code or a library changes, according to dvc."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo, lock_repo

from cocoseg.core.values import flatten
from tests.contract import (
    PARAMS,
    ROOT,
    STAGES,
    changed_stages,
    groups,
    other_values,
    stages_that_depend,
    stages_to_run,
    table,
    with_later_stages,
)
from tests.import_graph import declared_dependencies, declared_dependency

from .conftest import Project, make_project, stages_restored, stages_run

pytestmark = [
    pytest.mark.xdist_group("contract"),
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # from dvc
]

PACKAGES = {stage: declared_dependencies(ROOT / f"stages/{stage}.py", ROOT) for stage in STAGES}
CODE = sorted(
    path.relative_to(ROOT).as_posix()
    for directory in ("stages", "cocoseg")
    for path in ROOT.glob(f"{directory}/**/*")
    if path.suffix in (".py", ".jinja", ".txt")
)


@pytest.fixture(scope="module")
def asked(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the finished project for queries; each test undoes its changes."""
    return finished.copy(tmp_path_factory.mktemp("asked") / "project")


@pytest.fixture(scope="module")
def changed(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the finished project for the command line; each test leaves it consistent."""
    return finished.copy(tmp_path_factory.mktemp("changed") / "project")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which no stage has run."""
    return make_project(tmp_path_factory.mktemp("fresh"))


def test_the_documented_table_agrees_with_dvc_yaml() -> None:
    assert f"\n\n{table()}\n\n" in (ROOT / "docs/parameters.md").read_text(encoding="utf-8"), (
        "copy the output of `python -m tests.contract` to docs/parameters.md"
    )


@pytest.mark.parametrize("preset", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_preset_has_the_keys_of_params_yaml(preset: Path) -> None:
    assert (
        flatten(yaml.safe_load(preset.read_text(encoding="utf-8"))).keys() == flatten(PARAMS).keys()
    )


@pytest.mark.parametrize("preset", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_key_of_a_preset_has_another_valid_value(preset: Path) -> None:
    params = yaml.safe_load(preset.read_text(encoding="utf-8"))
    for key, value in flatten(params).items():
        assert other_values(params, key)[key] != value


@pytest.fixture(scope="module")
def repo(asked: Project) -> Iterator[Repo]:
    """DVC in this process. While locked, it reads dvc.yaml and dvc.lock only once."""
    with Repo(str(asked.directory)) as opened, lock_repo(opened):
        yield opened


@contextmanager
def changed_text(path: Path) -> Iterator[str]:
    """The content of a file, which is restored at the end."""
    before = path.read_text(encoding="utf-8")
    try:
        yield before
    finally:
        path.write_text(before, encoding="utf-8")


@contextmanager
def changed_value(project: Project, key: str) -> Iterator[None]:
    with changed_text(project.directory / "params.yaml") as text:
        project.set_params(other_values(yaml.safe_load(text), key))
        yield


@pytest.mark.parametrize("key", flatten(PARAMS))
def test_a_changed_parameter_changes_exactly_the_stages_that_depend_on_it(
    asked: Project, repo: Repo, key: str
) -> None:
    with changed_value(asked, key):
        assert changed_stages(repo) == stages_that_depend(key)


@pytest.mark.parametrize("key", [keys[0] for keys in groups().values()])
def test_a_changed_parameter_reruns_only_later_stages(asked: Project, repo: Repo, key: str) -> None:
    with changed_value(asked, key):
        assert stages_to_run(repo) == with_later_stages(stages_that_depend(key))


def test_changed_exclusions_change_the_filter_stage(asked: Project, repo: Repo) -> None:
    path = asked.directory / PARAMS["filter"]["exclude"]
    with changed_text(path) as text:
        path.write_text(f"{text}1,\n", encoding="utf-8")
        assert changed_stages(repo) == {"filter"}


@pytest.mark.parametrize("key", ["filter.classes", "runtime.connections"])
def test_status_and_dry_run_name_the_same_stages(changed: Project, key: str) -> None:
    with changed_value(changed, key):
        status = json.loads(changed.succeed("dvc", "status", "--json"))
        to_run = stages_run(changed.succeed("dvc", "repro", "--dry", "--force-downstream"))
    assert set(status) == stages_that_depend(key)
    assert set(to_run) == with_later_stages(stages_that_depend(key))


def test_another_version_of_a_library_changes_the_stages_that_import_it(
    asked: Project, repo: Repo
) -> None:
    path = asked.directory / "cocoseg/models/constraints.txt"
    with changed_text(path) as text:
        path.write_text(re.sub(r"torch==.*", "torch==9.0.0", text), encoding="utf-8")
        assert changed_stages(repo) == {"train", "evaluate", "export"}
    path = asked.directory / "constraints.txt"
    with changed_text(path) as text:
        path.write_text(f"{text}zstandard==1.0.0\n", encoding="utf-8")
        assert changed_stages(repo) == set()


@pytest.mark.parametrize("file", CODE)
def test_changed_code_changes_exactly_the_stages_that_import_its_package(
    asked: Project, repo: Repo, file: str
) -> None:
    path = asked.directory / file
    with changed_text(path) as text:
        path.write_text(f"{text}# changed\n", encoding="utf-8")
        expected = {stage for stage in STAGES if declared_dependency(file) in PACKAGES[stage]}
        assert changed_stages(repo) == expected


AFTER_TRAIN = ["evaluate", "export", "report"]
AFTER_MASK = ["inspect", "train", *AFTER_TRAIN]
AFTER_FILTER = ["images", "mask", "near_duplicates", "split", *AFTER_MASK]


@pytest.mark.parametrize(
    ("file", "stages", "later"),
    [
        ("cocoseg/cli.py", [], []),
        ("cocoseg/experiments/compare.py", [], []),
        ("cocoseg/experiments/compare.html.jinja", [], []),
        ("cocoseg/params/__init__.py", [], []),
        ("cocoseg/params/runtime.py", [], []),
        ("cocoseg/params/download.py", ["download", "images"], ["filter", *AFTER_FILTER]),
        ("cocoseg/params/filter.py", ["filter", "inspect"], AFTER_FILTER),
        ("cocoseg/params/mask.py", ["mask"], AFTER_MASK),
        ("cocoseg/params/split.py", ["split"], AFTER_MASK),
        ("cocoseg/params/train.py", ["initial_weights", "train"], AFTER_TRAIN),
        ("cocoseg/params/evaluate.py", ["evaluate"], ["report"]),
        ("cocoseg/params/export.py", ["export"], ["report"]),
        ("cocoseg/params/report.py", ["report"], []),
        ("cocoseg/reports/run.html.jinja", ["inspect", "report"], []),
        ("cocoseg/reports/data/data.html.jinja", ["inspect", "report"], []),
    ],
)
def test_an_edited_help_text_docstring_or_template_reruns_only_these_stages(
    asked: Project, repo: Repo, file: str, stages: list[str], later: list[str]
) -> None:
    path = asked.directory / file
    with changed_text(path) as text:
        path.write_text(f"{text}# changed\n", encoding="utf-8")  # DVC compares only the content
        assert changed_stages(repo) == set(stages)
        assert stages_to_run(repo) == {*stages, *later}


@pytest.mark.parametrize("key", ["split.fold", "split.seed"])
def test_another_split_does_not_search_for_near_duplicates_again(
    asked: Project, repo: Repo, key: str
) -> None:
    with changed_value(asked, key):
        assert changed_stages(repo) == {"split", "report"}  # the report shows all parameters
        assert stages_to_run(repo) == {"split", *AFTER_MASK}


def test_another_fold_runs_only_split(project: Project) -> None:
    project.set_params({"split.fold": 1})
    before = project.results("data/splits")
    assert stages_run(project.succeed("dvc", "repro", "split")) == ["split"]
    assert project.results("data/splits") != before


@pytest.mark.parametrize(
    ("package", "stages"),
    [
        ("sources/synthetic", ["download", "images", "initial_weights"]),
        ("sources", ["download", "images", "initial_weights"]),
        ("curation", ["filter", "near_duplicates", "split", "inspect"]),
        ("evaluation", ["evaluate"]),
        ("export", ["export"]),
        ("reports", ["inspect", "report"]),
        ("training", ["train"]),
        ("experiments", []),
        ("params", []),
    ],
)
def test_a_new_module_changes_the_stages_of_its_package_but_temporary_files_change_none(
    asked: Project, repo: Repo, package: str, stages: list[str]
) -> None:
    directory = asked.directory / "cocoseg" / package
    for temporary in (directory / "__pycache__/new.cpython-311.pyc", directory / ".new.py.swp"):
        temporary.parent.mkdir(exist_ok=True)
        temporary.write_bytes(b"of Python or an editor")
    assert changed_stages(repo) == set()
    new = directory / "new.py"
    new.write_text("", encoding="utf-8")
    assert changed_stages(repo) == set(stages)
    new.unlink()


def test_a_changed_parameter_runs_its_stage_and_the_stages_that_follow(changed: Project) -> None:
    changed.set_params({"evaluate.flip": True})
    output = changed.succeed("dvc", "repro")
    assert stages_run(output) == ["evaluate", "report"]
    assert stages_restored(output) == []


@pytest.mark.parametrize(
    "key",
    [
        *("download.source", "filter.prefer", "mask.crowd", "split.folds", "train.epochs"),
        *("evaluate.flip", "export.opset", "report.title", "runtime.workers"),
    ],
)
def test_a_misspelled_key_of_any_section_is_refused_by_the_first_stage(
    fresh: Project, key: str
) -> None:
    section, name = key.split(".")
    path = fresh.directory / "params.yaml"
    with changed_text(path) as text:
        params = yaml.safe_load(text)
        params[section][f"{name}_"] = params[section].pop(name)
        path.write_text(yaml.safe_dump(params), encoding="utf-8")
        refused = fresh.run("dvc", "repro")
    assert refused.returncode != 0
    assert stages_run(refused.stdout) == ["download"]
    assert re.search(rf"^error: params\.yaml: .*\b{key}_: ", refused.stderr, re.MULTILINE)


def test_a_misspelled_key_of_the_last_stage_is_refused_before_training(project: Project) -> None:
    project.set_params({"split.seed": 1, "report.titel": "A title"})
    refused = project.run("dvc", "repro")
    assert refused.returncode != 0
    assert stages_run(refused.stdout) == ["split"]
    assert "error: params.yaml: report.titel: " in refused.stderr
