"""Plain values for JSON and tables."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


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
