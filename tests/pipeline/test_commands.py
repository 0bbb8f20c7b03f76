"""Further DVC commands, run in this process; docs/dvc-commands.md lists all commands."""

import re

import pytest

from tests import ROOT

from .conftest import Project, dvc, stages_run

pytestmark = [
    pytest.mark.xdist_group("sharing"),
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # from dvc
]

TABLE = (ROOT / "docs/dvc-commands.md").read_text(encoding="utf-8")


def test_read_only_commands_succeed_and_change_no_result(
    finished: Project, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    for command, shown in {
        "dag --md": "node",
        "diff HEAD~1": "models/model.safetensors",
        "du . models": "models/onnx",
        "exp diff HEAD~1 HEAD --all": "miou",
        "ls . models": "model.safetensors",
        "params diff HEAD~1 --all": "train.lr",
        "root": ".",
        "stage list": "Train the network",
        "status": "up to date",
        "version": "DVC version",
    }.items():
        assert dvc(project, command) == 0, command
        assert shown in capfd.readouterr().out, command
    assert project.results() == finished.results()


def test_dvc_commit_accepts_changed_code_and_exp_save_keeps_the_results(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    with (project.directory / "cocoseg/evaluation/plots.py").open("a", encoding="utf-8") as file:
        file.write("# a comment\n")
    assert dvc(project, "status") == 0
    assert "evaluate" in capfd.readouterr().out
    assert dvc(project, "commit --force evaluate") == 0
    assert dvc(project, "repro") == 0
    assert stages_run(capfd.readouterr().out) == []

    assert dvc(project, "exp save --name kept") == 0
    assert dvc(project, "exp rename kept renamed") == 0
    capfd.readouterr()
    assert dvc(project, "exp list --name-only") == 0
    assert capfd.readouterr().out.split() == ["renamed"]


def test_every_test_named_in_the_documentation_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", TABLE))
    tests = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    assert named
    assert not {name for name in named if f"def {name}(" not in tests}
