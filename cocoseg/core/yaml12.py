"""YAML as DVC reads and writes it: YAML 1.2, in which 1e-05 is a number and `no` is text."""

import re
from pathlib import Path
from typing import Any

import yaml

from cocoseg.core.errors import UserError


class _Yaml12(yaml.SafeLoader):
    """PyYAML with YAML 1.2's plain scalars, as DVC reads and writes them: 1e-05 is a number, `no`
    a text. A key that stands twice is an error."""

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


# What ruamel.yaml, DVC's reader, resolves; it allows underscores in numbers as YAML 1.1 does.
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
    """The content of a YAML file. Raises UserError as `parse_yaml` does."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None


def parse_yaml(text: str, name: str) -> Any:
    """The content of YAML, as DVC reads it: YAML 1.2, in which 1e-05 is a number.

    Raises UserError with the line where it is no YAML; `name` says of which file.
    """
    try:
        return yaml.load(text, _Yaml12)  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-99-99
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        reason = f"line {mark.line + 1}: {problem}" if mark else " ".join(str(error).split())
        raise UserError(f"{name} is not valid YAML: {reason}") from None
