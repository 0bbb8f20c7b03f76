"""dvc.yaml declares exactly the code, libraries and parameters that each stage uses."""

import re
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from cocoseg.params.reader import load_params, params_model
from tests import ROOT
from tests.import_graph import (
    declared_dependencies,
    defined_names,
    direct_imports,
    imported_files,
    third_party_imports,
)

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_exactly_the_packages_it_imports(name: str) -> None:
    declared = {dep for dep in STAGES[name]["deps"] if dep.startswith(("stages/", "cocoseg/"))}
    assert declared == declared_dependencies(ROOT / "stages" / f"{name}.py", ROOT)


def test_the_report_reads_the_machine_figures_of_all_other_stages() -> None:
    read = {dep for dep in STAGES["report"]["deps"] if dep.startswith("metrics/machine")}
    assert read == {f"metrics/machine/{name}.json" for name in STAGES if name != "report"}


WATCHING = {"dulwich", "dvc", "dvclive", "psutil", "scmrepo", "tqdm", "wandb"}
"""Libraries that run or track a stage: another version changes no result."""


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_versions_of_the_libraries_it_imports(name: str) -> None:
    files = [ROOT / file for file in imported_files(ROOT / "stages" / f"{name}.py", ROOT)]
    directories = {ROOT / dep for dep in STAGES[name]["deps"] if dep.startswith("cocoseg/")}
    texts = [
        path.read_text(encoding="utf-8") for f in directories for path in f.glob("constraints.txt")
    ]
    pinned = {line.partition("==")[0] for text in texts for line in text.split()}
    distributions = metadata.packages_distributions()
    imported = {
        distribution.lower().replace("_", "-")
        for module in third_party_imports(files)
        for distribution in distributions[module]
    }
    assert imported - WATCHING <= pinned


def test_constraints_txt_includes_those_of_every_package() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    named = set(re.findall(r"^-c (\S+)$", text, flags=re.MULTILINE))
    assert named == {p.relative_to(ROOT).as_posix() for p in ROOT.glob("cocoseg/*/constraints.txt")}


def test_packages_import_only_from_those_listed_before_them() -> None:
    order = documented_names(ROOT / "cocoseg/__init__.py")
    assert set(order) == {path.parent.name for path in ROOT.glob("cocoseg/*/__init__.py")}
    for place, package in enumerate(order):
        for file in (ROOT / "cocoseg" / package).rglob("*.py"):
            imported = {
                path.relative_to(ROOT / "cocoseg").parts[0] for path in direct_imports(file, ROOT)
            }
            assert imported <= set(order[: place + 1]), file


def test_a_package_documents_its_modules_and_has_few() -> None:
    for init in ROOT.glob("cocoseg/*/__init__.py"):
        modules = {path.stem for path in init.parent.glob("*.py")} - {"__init__"}
        modules |= {path.parent.name for path in init.parent.glob("*/__init__.py")}
        assert sorted(documented_names(init)) == sorted(modules), init
        assert len(modules) <= 10, init


def documented_names(init: Path) -> list[str]:
    """The names in the table of a package's docstring."""
    return re.findall(r"^(\w+)  +\S", init.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_every_module_has_a_name_of_its_own() -> None:
    """Only a module of `params` may have the name of a package: its section has it, too."""
    modules = [path for path in ROOT.glob("cocoseg/**/*.py") if path.stem != "__init__"]
    packages = [path.parent.name for path in ROOT.glob("cocoseg/**/__init__.py")]
    names = [path.stem for path in modules]
    others = [path.stem for path in modules if path.parent.name != "params"] + packages
    assert repeated(names) == set()
    assert repeated(others) == set()


def test_every_public_name_has_one_meaning() -> None:
    names = [name for path in ROOT.glob("cocoseg/**/*.py") for name in defined_names(path)]
    assert repeated(name for name in names if not name.startswith("_")) == {"main", "logger"}


def repeated(names: Iterable[str]) -> set[str]:
    return {name for name, count in Counter(names).items() if count > 1}


def test_every_script_in_stages_is_a_stage() -> None:
    assert {path.stem for path in (ROOT / "stages").glob("*.py")} == set(STAGES)


def test_stages_depend_on_every_section_except_runtime() -> None:
    sections = {
        param.split(".")[0] for stage in STAGES.values() for param in stage.get("params", [])
    }
    assert sections == set(params_model().model_fields) - {"runtime"}


@pytest.mark.parametrize("preset", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_is_valid(preset: Path) -> None:
    load_params(preset)


def test_params_yaml_is_the_sample_preset() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "presets/sample.yaml").read_bytes()
