"""Models with other classes than the data: `cocoseg evaluate` and the stages."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from cocoseg.cli import main
from cocoseg.models.weights import load_model, save_model

from .conftest import Project

pytestmark = pytest.mark.xdist_group("sharing")


@pytest.fixture
def evaluate(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run `cocoseg evaluate` in the project and return its output; it must change no file."""

    def run(*arguments: str) -> str:
        before = project.results(".")
        monkeypatch.chdir(project.directory)
        main(["evaluate", *arguments])
        assert project.results(".") == before
        return capsys.readouterr().out

    return run


def test_the_projects_own_model_has_the_scores_of_its_last_run(
    project: Project, evaluate: Callable[..., str]
) -> None:
    staged = json.loads((project.directory / "metrics/test.json").read_text(encoding="utf-8"))
    printed = json.loads(evaluate("models/model.safetensors", "--json"))
    assert {**printed, **staged} == {**printed, "boundary_miou": staged["boundary_miou"]}
    assert printed["unknown_to_model"] == printed["unknown_to_data"] == []
    table = evaluate("models/onnx/float32.onnx")
    assert table.startswith(f"Test scores over {staged['images']} images (IoU)\n")
    everything = json.loads(evaluate("models/model.safetensors", "--split", "all", "--json"))
    splits = (project.directory / "data/splits").glob("*.txt")
    assert everything["images"] == sum(len(path.read_text().split()) for path in splits)


def test_a_model_of_other_classes_is_scored_by_name_and_refused_by_the_stages(
    project: Project, evaluate: Callable[..., str]
) -> None:
    path = project.directory / "models/model.safetensors"
    model, card = load_model(path)
    assert card.classes[2] == "bicycle"
    path.unlink()
    names = ("background", "person", "tricycle", *card.classes[3:])
    save_model(path, model, replace(card, classes=names))
    before = project.results("metrics", "data")
    for stage in ("evaluate", "export"):
        result = project.run(sys.executable, "-m", f"stages.{stage}")
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith(
            "error: models/model.safetensors has the classes person, tricycle, car"
        )
        assert "`cocoseg evaluate models/model.safetensors`" in line
        assert project.results("metrics", "data") == before

    table = evaluate("models/model.safetensors").splitlines()
    assert "  unknown to the model, without a score: bicycle" in table
    assert "  unknown to the data, counted as background: tricycle" in table
    rows = [line.split()[0] for line in table if "0." in line or "undefined" in line]
    assert rows[:5] == ["background", "person", "car", "motorcycle", "airplane"]
