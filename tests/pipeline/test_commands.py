"""DVC's smaller commands, in one process; docs/dvc-commands.md lists all and where they are run."""

import re

import pytest

from tests import ROOT

from .conftest import Project, dvc, stages_run

pytestmark = [
    pytest.mark.xdist_group("sharing"),
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # dvc's own
]

TABLE = (ROOT / "docs/dvc-commands.md").read_text(encoding="utf-8")


def test_what_only_looks(
    finished: Project, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    for command, shown in {
        "dag --md": "node",
        "diff HEAD~1": "models/model.safetensors",
        "du . models": "models/onnx",
        "exp diff HEAD~1 HEAD --all": "miou",
        "ls . models": "model.safetensors",
        "params diff HEAD~1": "",
        "root": ".",
        "stage list": "Train the network",
        "status": "up to date",
        "version": "DVC version",
    }.items():
        assert dvc(project, command) == 0, command
        assert shown in capfd.readouterr().out, command
    assert project.results() == finished.results()


def test_results_are_kept_as_an_experiment_and_code_is_called_unchanged(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    with (project.directory / "cocoseg/scoring/plots.py").open("a", encoding="utf-8") as file:
        file.write("# a comment\n")
    assert dvc(project, "status") == 0
    assert "evaluate" in capfd.readouterr().out
    assert dvc(project, "commit --force evaluate") == 0
    assert dvc(project, "repro") == 0
    assert stages_run(capfd.readouterr().out) == []

    assert dvc(project, "exp save --name kept") == 0
    assert dvc(project, "exp rename kept same-results") == 0
    capfd.readouterr()
    assert dvc(project, "exp list --name-only") == 0
    assert capfd.readouterr().out.split() == ["same-results"]


def test_the_table_of_commands_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", TABLE))
    tests = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    assert named
    assert not {name for name in named if f"def {name}(" not in tests}
