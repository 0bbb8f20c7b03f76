"""Reading and checking params.yaml: unknown keys, wrong types and impossible values are errors.

    params = load_params(Path("params.yaml"))
    params[TrainParams].epochs

Every stage checks every section, but depends only on this reader and on the modules of the sections
that it uses. The check of the other sections can refuse a file but never changes a result, so this
module finds them by name instead of importing them.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)

from cocoseg.core.errors import MissingFileError, UserError
from cocoseg.core.values import read_yaml

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def matching(pattern: str, expected: str) -> AfterValidator:
    """Accept strings that match the whole `pattern`; error messages describe it as `expected`."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


def renamed_value(old: str, new: str) -> BeforeValidator:
    """Refuse a value of earlier versions with an error that names its new form."""

    def check(value: object) -> object:
        if value == old:
            raise ValueError(f"'{old}' was renamed to '{new}'")
        return value

    return BeforeValidator(check)


class Section(BaseModel):
    """A section of params.yaml. It is strict: `"10"` is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)


SectionT = TypeVar("SectionT", bound=Section)

_RENAMED_KEYS = {
    "train.colour": "train.color_jitter",
    "download.files.folder": "download.files.directory",
}
"""Keys of earlier versions and their new names."""


class Params:
    """A checked parameter file: `params[TrainParams]` is its section `train`.

    Attributes:
        values: the plain values by section, as in the file.
    """

    def __init__(self, checked: Section, values: Mapping[str, Any]) -> None:
        self._sections = {type(section): section for _, section in checked}
        self.values = values

    def __getitem__(self, section: type[SectionT]) -> SectionT:
        found = self._sections[section]
        assert isinstance(found, section)
        return found


@cache
def params_model() -> type[Section]:
    """The model of a whole file: a field for each section module of this package.

    The module `train` defines the model `TrainParams`.
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

    Raises:
        MissingFileError: the file does not exist.
        UserError: the file is invalid. One line names each wrong key, such as `params.yaml:
            filter.max_instances: expected a number greater than 0, got -1`.
    """
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise MissingFileError(f"{path} not found; run from the project directory") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a directory; copy a file from presets/ instead") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} has no sections; copy a file from presets/ instead")
    return check_params(content, path)


def check_params(content: dict[str, Any], path: Path) -> Params:
    """Check the content of a parameter file.

    Raises:
        UserError: it is invalid; see `load_params`. The line starts with `path`.
    """
    try:
        checked = params_model().model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {_describe(error.errors())}") from None
    return Params(checked, content)


_Error = Mapping[str, Any]
"""An error as pydantic reports it."""


def _describe(errors: Iterable[_Error]) -> str:
    """One problem for each wrong key, as `section.key: expected SOMETHING, got VALUE`."""
    problems: dict[str, list[_Error]] = {}
    for error in errors:
        parts = (str(part) for part in error["loc"])
        key = ".".join(part for part in parts if not _UNION_BRANCH.fullmatch(part))
        problems.setdefault(key, []).append(error)
    for old, new in _RENAMED_KEYS.items():
        if old in problems:
            problems.pop(new, None)  # not also reported as missing
    return "; ".join(
        f"{key}: {_describe_key(key, of_key)}"
        for key, of_key in problems.items()
        # An error inside a list or mapping is more precise than that it is not one of the words.
        if not any(other.startswith(f"{key}.") for other in problems)
    )


_UNION_BRANCH = re.compile(r"constrained-\w+|(literal|dict|list)\[.*\]")
"""pydantic adds the alternative of a union, such as `int | Literal[...]`, to the location."""


def _describe_key(key: str, errors: list[_Error]) -> str:
    first = errors[0]
    if first["type"] == "extra_forbidden":
        if key in _RENAMED_KEYS:
            return f"renamed to {_RENAMED_KEYS[key]}"
        return "unknown key; remove or correct it"
    if first["type"] == "missing":
        return "missing; presets/ shows every key"
    if first["type"] == "value_error":
        message = str(first["msg"]).removeprefix("Value error, ")
    else:
        alternatives = [_expected(error) for error in errors]
        message = "expected " + " or ".join(dict.fromkeys(alternatives))
    value = first["input"]
    if isinstance(value, dict) or not message.startswith("expected"):
        return message
    if value is None:
        shown = "null"
    else:
        shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return f"{message}, got {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _expected(error: _Error) -> str:
    """The expected value in words: ours, or else pydantic's."""
    if words := _EXPECTED.get(error["type"]):
        return words.format(**error.get("ctx", {})).replace(" 1 items", " 1 item")
    return str(error["msg"]).removeprefix("Input should be ")


_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "keys with values",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "int_type": "an integer",
    "less_than": "a number less than {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "list_type": "a list",
    "model_type": "a section with keys, as in presets/",
    "string_too_short": "a non-empty string",
    "string_type": "a string",
    "too_long": "a list of at most {max_length} items",
    "too_short": "a list of at least {min_length} items",
}
