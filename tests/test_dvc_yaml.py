"""dvc.yaml declares what the stages really use."""

from pathlib import Path

import pytest
import yaml

from cocoseg.params import Params, load_params
from tests.import_graph import CODE_SUFFIXES, imported_files

ROOT = Path(__file__).resolve().parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_exactly_the_code_it_imports(name: str) -> None:
    declared = {dep for dep in STAGES[name]["deps"] if dep.endswith(CODE_SUFFIXES)}
    assert declared == imported_files(ROOT / "stages" / f"{name}.py", ROOT)


def test_every_stage_script_is_a_stage() -> None:
    assert {path.stem for path in (ROOT / "stages").glob("*.py")} == set(STAGES)


def test_no_stage_depends_on_runtime_parameters() -> None:
    sections = {
        param.split(".")[0] for stage in STAGES.values() for param in stage.get("params", [])
    }
    assert sections == set(Params.model_fields) - {"runtime"}


@pytest.mark.parametrize("preset", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_is_valid(preset: Path) -> None:
    load_params(preset)


def test_params_yaml_is_the_sample_preset() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "presets/sample.yaml").read_bytes()
