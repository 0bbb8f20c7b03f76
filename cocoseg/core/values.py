"""Plain values for JSON and tables, and YAML 1.2 as DVC reads and writes it.

In YAML 1.2, `1e-05` is a number and `no` is a string.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cocoseg.core.errors import UserError


def rounded(value: float | np.floating[Any]) -> float | None:
    """A number rounded to 6 decimals for JSON; None for NaN."""
    return None if np.isnan(value) else round(float(value), 6)


def flatten(
    values: Mapping[str, Any], separator: str = ".", rename: Callable[[str], str] = str
) -> dict[str, Any]:
    """Flatten nested mappings into one with keys such as `a.b`.

    Args:
        values: the mappings.
        separator: the text between the parts of a key.
        rename: applied to each part of a key.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = rename(key)
        if isinstance(value, Mapping):
            inner = flatten(value, separator, rename)
            flat |= {f"{name}{separator}{rest}": leaf for rest, leaf in inner.items()}
        else:
            flat[name] = value
    return flat


class _Yaml12(yaml.SafeLoader):
    """PyYAML with the plain scalars of YAML 1.2; duplicate keys are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if (identity := (key.tag, str(key.value))) in seen:
                problem = f'found duplicate key "{key.value}"'
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(identity)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _construct_integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    digits = node.value.replace("_", "").lstrip("+")
    return int(digits, 0 if re.match("-?0[box]", digits) else 10)


# The scalars of ruamel.yaml, DVC's reader, which allows underscores in numbers as YAML 1.1 does.
_SCALARS = {
    "bool": ("tTfF", "true|True|TRUE|false|False|FALSE"),
    "int": ("-+0123456789", r"[-+]?(?:0b[01_]+|0o?[0-7_]+|[0-9_]+|0x[0-9a-fA-F_]+)"),
    "float": (
        "-+0123456789.",
        r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)"
        r"|\.[0-9_]+(?:[eE][-+][0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
    ),
}
_TAG = "tag:yaml.org,2002:"
_Yaml12.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(_TAG) not in _SCALARS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, (_first, _pattern) in _SCALARS.items():
    _Yaml12.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern})$"), list(_first))
_Yaml12.add_constructor(f"{_TAG}int", _construct_integer)


def read_yaml(path: Path) -> Any:
    """Parse a YAML file.

    Raises:
        UserError: the file is not valid YAML in UTF-8; the message names the line.
        OSError: the file cannot be read.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None


def parse_yaml(text: str, name: str) -> Any:
    """Parse YAML.

    Args:
        text: the YAML.
        name: the file's name in error messages.

    Raises:
        UserError: the text is not valid YAML; the message names the line.
    """
    try:
        return yaml.load(text, _Yaml12)  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-99-99
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        reason = f"line {mark.line + 1}: {problem}" if mark else " ".join(str(error).split())
        raise UserError(f"{name} is not valid YAML: {reason}") from None
