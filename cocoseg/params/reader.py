"""The typed content of params.yaml: unknown keys, wrong types and impossible values are refused.

    params = load_params(Path("params.yaml"))
    params[TrainParams].epochs

Every section is checked, whichever stage reads the file. A stage depends on the modules of the
sections it uses and on this reader: the check of the others can refuse a file but changes no
result, so this module finds them by name instead of importing them.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from cocoseg.core.errors import UserError
from cocoseg.core.yaml12 import read_yaml

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def matching(pattern: str, expected: str) -> AfterValidator:
    """Texts that match `pattern` as a whole; an error says in words what is `expected`."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


class Section(BaseModel):
    """A part of params.yaml. Strict: `"10"` is no number, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)


SectionT = TypeVar("SectionT", bound=Section)

_RENAMED = {
    "train.colour": "train.color_jitter",
    "download.files.folder": "download.files.directory",
}
"""Keys of earlier versions and their names today."""


class Params:
    """A checked parameter file: `params[TrainParams]` is its section `train`."""

    def __init__(self, checked: Section, values: Mapping[str, Any]) -> None:
        self._sections = {type(section): section for _, section in checked}
        self.values = values
        """The plain values by section, as in the file."""

    def __getitem__(self, section: type[SectionT]) -> SectionT:
        found = self._sections[section]
        assert isinstance(found, section)
        return found


@cache
def params_model() -> type[Section]:
    """The model of a whole file: a field for each section module of this package.

    The module `train` holds the model `TrainParams`.
    """
    names = [module.name for module in iter_modules([str(Path(__file__).parent)])]
    fields: dict[str, Any] = {
        name: (getattr(import_module(f"{__package__}.{name}"), f"{name.title()}Params"), ...)
        for name in names
        if name != "reader"
    }
    return create_model("ParamsFile", __base__=Section, **fields)


def load_params(path: Path) -> Params:
    """Read and check a parameter file.

    Raises UserError with one line that names each wrong key, such as
    `params.yaml: filter.max_instances: input should be greater than 0, got -1`.
    """
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise UserError(f"{path} not found: run from the project directory") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a directory; presets/ has complete files to copy") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} has no sections; presets/ has complete files to copy")
    try:
        checked = params_model().model_validate(content)
    except ValidationError as error:
        problems = {".".join(map(str, e["loc"])): e for e in error.errors()}
        for old, new in _RENAMED.items():
            if old in problems:  # and not "missing" as well
                problems.pop(new, None)
        raise UserError(f"{path}: " + "; ".join(map(_describe, problems.values()))) from None
    return Params(checked, content)


def _describe(error: Any) -> str:
    """One pydantic error as `section.key: PROBLEM, got VALUE`."""
    parts = [str(part) for part in error["loc"] if not _is_union_branch(part)]
    key = ".".join(parts)
    if error["type"] == "extra_forbidden":
        if key in _RENAMED:
            return f"{key}: renamed to {_RENAMED[key]}"
        return f"{key}: unknown key; remove or correct it"
    if error["type"] == "missing":
        return f"{key}: missing; presets/ shows every key"
    if error["type"] == "model_type":
        return f"{key}: expected a section of keys; presets/ shows them"
    message = error["msg"].removeprefix("Value error, ")
    described = f"{key}: {message[0].lower()}{message[1:]}"
    if isinstance(error["input"], dict):
        return described
    shown = repr(error["input"])
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return f"{described}, got {shown}"


def _is_union_branch(part: Any) -> bool:
    """pydantic puts the tried alternative of `int | Literal[...]` into the location as well."""
    return isinstance(part, str) and not part.isidentifier()
