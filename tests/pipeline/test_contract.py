"""What reruns when a parameter or a line of code changes: the table of docs, asked of dvc."""

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
    other_value,
    stages_that_depend,
    stages_to_run,
    table,
    with_later_stages,
)
from tests.import_graph import declared_dependencies, declared_dependency

from .conftest import Project, stages_restored, stages_run

pytestmark = [
    pytest.mark.xdist_group("contract"),
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # dvc's own
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
    """A copy of the finished project for questions to dvc; a test puts back what it changes."""
    return finished.copy(tmp_path_factory.mktemp("asked") / "project")


@pytest.fixture(scope="module")
def changed(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the finished project for the command line; tests leave it as their last run did."""
    return finished.copy(tmp_path_factory.mktemp("changed") / "project")


def test_the_docs_have_the_table_that_dvc_yaml_gives() -> None:
    assert f"\n\n{table()}\n\n" in (ROOT / "docs/parameters.md").read_text(encoding="utf-8"), (
        "put the output of `python -m tests.contract` into docs/parameters.md"
    )


@pytest.mark.parametrize("preset", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_preset_has_no_key_that_the_table_leaves_out(preset: Path) -> None:
    assert (
        flatten(yaml.safe_load(preset.read_text(encoding="utf-8"))).keys() == flatten(PARAMS).keys()
    )


@pytest.fixture(scope="module")
def repo(asked: Project) -> Iterator[Repo]:
    """DVC in this process. While it is locked, it reads dvc.yaml and dvc.lock once only."""
    with Repo(str(asked.directory)) as opened, lock_repo(opened):
        yield opened


@contextmanager
def changed_text(path: Path) -> Iterator[str]:
    """The content of a file that may be changed; it is put back."""
    before = path.read_text(encoding="utf-8")
    try:
        yield before
    finally:
        path.write_text(before, encoding="utf-8")


@contextmanager
def changed_value(project: Project, key: str) -> Iterator[None]:
    with changed_text(project.directory / "params.yaml") as text:
        project.set_params({key: other_value(yaml.safe_load(text), key)})
        yield


@pytest.mark.parametrize("key", flatten(PARAMS))
def test_a_changed_parameter_changes_exactly_the_stages_that_depend_on_it(
    asked: Project, repo: Repo, key: str
) -> None:
    with changed_value(asked, key):
        assert changed_stages(repo) == stages_that_depend(key)


@pytest.mark.parametrize("key", [keys[0] for keys in groups().values()])
def test_only_later_stages_can_follow(asked: Project, repo: Repo, key: str) -> None:
    with changed_value(asked, key):
        assert stages_to_run(repo) == with_later_stages(stages_that_depend(key))


def test_a_changed_list_of_exclusions_changes_the_filter(asked: Project, repo: Repo) -> None:
    path = asked.directory / PARAMS["filter"]["exclude"]
    with changed_text(path) as text:
        path.write_text(f"{text}1,\n", encoding="utf-8")
        assert changed_stages(repo) == {"filter"}


@pytest.mark.parametrize("key", ["filter.classes", "runtime.connections"])
def test_the_command_line_says_the_same(changed: Project, key: str) -> None:
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


@pytest.mark.parametrize(
    ("package", "stages"),
    [
        ("sources/synthetic", ["download", "images"]),
        ("sources", ["download", "images"]),
        ("curation", ["filter", "near_duplicates", "split", "inspect"]),
        ("evaluation", ["evaluate"]),
        ("export", ["export"]),
        ("reports", ["inspect", "report"]),
        ("training", ["train"]),
        ("experiments", []),
        ("params", []),
    ],
)
def test_a_new_module_changes_these_stages_and_what_python_leaves_there_none(
    asked: Project, repo: Repo, package: str, stages: list[str]
) -> None:
    directory = asked.directory / "cocoseg" / package
    for left in (directory / "__pycache__/new.cpython-311.pyc", directory / ".new.py.swp"):
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(b"left by a program")
    assert changed_stages(repo) == set()
    new = directory / "new.py"
    new.write_text("", encoding="utf-8")
    assert changed_stages(repo) == set(stages)
    new.unlink()


def test_a_run_after_a_change_runs_these_stages(changed: Project) -> None:
    changed.set_params({"evaluate.flip": True})
    output = changed.succeed("dvc", "repro")
    assert stages_run(output) == ["evaluate", "report"]
    assert stages_restored(output) == []
    own = stages_that_depend("evaluate.flip")
    assert own <= {"evaluate", "report"} <= with_later_stages(own)
