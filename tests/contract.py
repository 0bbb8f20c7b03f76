"""The stages that a changed parameter reruns, according to dvc.yaml and according to DVC.

To print the table of docs/parameters.md, run `python -m tests.contract`.
"""

from collections.abc import Iterable, Iterator
from contextlib import chdir
from typing import Any

import yaml
from dvc.repo import Repo
from pydantic import ValidationError

from cocoseg.core.values import flatten
from cocoseg.params.reader import params_model
from tests import ROOT

PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

DEPENDS = "●"
FOLLOWS = "○"


def stages_that_depend(key: str) -> set[str]:
    """The stages that list the parameter `key` or its section in dvc.yaml."""
    return {
        name
        for name, stage in STAGES.items()
        if any(f"{key}.".startswith(f"{param}.") for param in stage.get("params", []))
    }


def with_later_stages(names: Iterable[str]) -> set[str]:
    """These stages and all stages that depend on their outputs, directly or indirectly."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [later for later in STAGES if _reads(later, name)]
    return found


def _reads(later: str, earlier: str) -> bool:
    return any(
        f"{dep}/".startswith(f"{out}/") or f"{out}/".startswith(f"{dep}/")
        for dep in STAGES[later]["deps"]
        for out in outputs(earlier)
    )


def changed_stages(repo: Repo) -> set[str]:
    """The stages that `dvc status` reports as changed."""
    with chdir(repo.root_dir):
        return set(repo.status())


def stages_to_run(repo: Repo) -> set[str]:
    """The stages of `dvc repro --dry --force-downstream`: changed ones and all that follow."""
    with chdir(repo.root_dir):
        return {stage.addressing for stage in repo.reproduce(dry=True, force_downstream=True)}


def outputs(stage: str) -> list[str]:
    """The paths of a stage's outputs, including metrics and plots."""
    entries = [
        entry for kind in ("outs", "metrics", "plots") for entry in STAGES[stage].get(kind, [])
    ]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


TOGETHER = {"train.encoder": {"train.architecture": "fpn", "train.encoder": "mobilenet_v2"}}
"""Keys that can only be changed together with others, with valid values."""


def other_values(params: dict[str, Any], key: str) -> dict[str, Any]:
    """Another value for `key` that is valid together with the other parameters."""
    if key in TOGETHER:
        return TOGETHER[key]
    *sections, name = key.split(".")
    for value in _candidates(flatten(params)[key]):
        changed = yaml.safe_load(yaml.safe_dump(params))
        section = changed
        for part in sections:
            section = section[part]
        section[name] = value
        try:
            params_model().model_validate(changed)
        except ValidationError:
            continue
        return {key: value}
    raise LookupError(f"{key}: no other valid value; add one to tests/contract.py")


def _candidates(value: Any) -> Iterator[Any]:
    """Other values of the same type, valid or not."""
    match value:
        case bool():
            yield not value
        case int():
            yield from (value + 1, value - 1)
        case float():
            yield from (value / 2 or 0.5, value + 0.5)  # half of 0 is 0
        case str():
            choices = [*_choices(params_model().model_json_schema()), "cpu", "auto", "none", "coco"]
            yield from (f"{value}, changed", value[::-1])
            yield from (choice for choice in choices if choice != value)
            yield from (1, [value])  # for words that replace a number or a list: `auto`, `all`
        case list():
            yield from (value[:-1], [*value, *value[-1:]], value[:1] * max(2, len(value)))
            yield from ([*value, choice] for choice in _choices(params_model().model_json_schema()))
        case None:
            yield from ("0" * 32, 1, 32, [64, 96])


def _choices(schema: Any) -> Iterator[str]:
    """Every word that some parameter accepts."""
    if isinstance(schema, dict):
        yield from (choice for choice in schema.get("enum", []) if isinstance(choice, str))
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from _choices(part)


def groups() -> dict[str, list[str]]:
    """The rows of the table: a label and its keys of params.yaml.

    Keys of a section on which the same stages depend share the row `section.*`.
    """
    found: dict[str, list[str]] = {}
    for section in PARAMS:
        stages = {key: stages_that_depend(key) for key in flatten({section: PARAMS[section]})}
        most = max(stages.values(), key=list(stages.values()).count)
        found[f"{section}.*"] = [key for key in stages if stages[key] == most]
        found |= {key: [key] for key in stages if stages[key] != most}
    return found


def table() -> str:
    """A Markdown table of all parameters and stages."""
    lines = [_line(["parameter", *STAGES]), _line(["---", *[":-:"] * len(STAGES)])]
    for label, keys in groups().items():
        own = stages_that_depend(keys[0])
        marks = dict.fromkeys(with_later_stages(own), FOLLOWS) | dict.fromkeys(own, DEPENDS)
        lines.append(_line([f"`{label}`", *(marks.get(stage, "") for stage in STAGES)]))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print(table())
